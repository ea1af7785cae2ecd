"""The calls of the management API, on a cluster of two engines with real connections."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AuthMode, TokenSettings
from fanline.protocol.auth.tokens import sign
from fanline.workers.access import make_verifier
from tests.support.raw_client import RawClient, connect, connect_raw
from tests.workers.control.cluster import Managed, managed

OPERATOR = "the operator"
SECRET = "s" * 48
TEN_FIELDS = frozenset(
    "total_connections active_connections messages_sent messages_received disconnections errors active_users "
    "active_sessions total_user_connections total_session_connections".split()
)


@asynccontextmanager
async def with_clients(subprotocol: str | None = "fanline.v1.json") -> AsyncIterator[tuple[Managed, list[RawClient]]]:
    """A client on each engine."""
    with trio.fail_after(30):
        async with managed() as cluster, AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connect(each.host, each.port, subprotocol))
                for each in (cluster.one, cluster.other)
            ]
            yield cluster, clients


async def subscribed(client: RawClient, channel: str) -> None:
    assert (await client.ask({"t": "sub", "c": channel, "i": "1"}))["t"] == "ok"


# --- looking ------------------------------------------------------------------------------------------------------


async def test_numbers_and_lists_are_those_of_all_workers() -> None:  # S2-91, S4-36, S4-38, S4-39
    async with with_clients() as (cluster, clients):
        for client in clients:
            await subscribed(client, "news:all")
        await subscribed(clients[0], "session:7")
        stats = (await cluster.call("GET", "/stats")).json()
        assert (stats["total_connections"], stats["active_channels"], stats["active_sessions"]) == (2, 2, 1)
        assert set(stats) >= TEN_FIELDS
        assert (stats["total_session_connections"], stats["online_users"], stats["disconnections"]) == (1, 0, 0)
        channels = (await cluster.call("GET", "/channels")).json()["items"]
        assert channels == [{"channel": "news:all", "subscribers": 2}, {"channel": "session:7", "subscribers": 1}]
        one = (await cluster.call("GET", "/channels/news:all")).json()
        assert (one["subscribers"], one["durable"], one["stream"]) == (2, False, None)


async def test_pages_have_every_connection_once() -> None:  # S4-40
    async with with_clients() as (cluster, clients):
        page = (await cluster.call("GET", "/connections?limit=1")).json()
        found = list(page["items"])
        while page["next"] is not None:
            page = (await cluster.call("GET", f"/connections?limit=1&after={page['next']}")).json()
            found += page["items"]
        # Both engines are in one process, and so their ids have one beginning.
        assert sorted(each["connection_id"] for each in found) == sorted(client.connection for client in clients)


async def test_the_canary_comes_back() -> None:  # S4-42
    with trio.fail_after(30):
        async with managed() as cluster:
            health = await cluster.call("GET", "/health")
            assert health.status_code == 200, health.text
            assert health.json()["socket"]["ok"]
            assert 0 < health.json()["socket"]["seconds"] < 5


# --- sending ------------------------------------------------------------------------------------------------------


async def test_a_message_to_a_channel_says_how_many_are_there_to_take_it() -> None:  # S2-25, S2-93
    async with with_clients() as (cluster, clients):
        for client in clients:
            await subscribed(client, "news:all")
        sent = await cluster.call(
            "POST",
            "/send-to-channel",
            {"channel": "news:all", "message": {"type": "hello", "data": {"a": 1}, "category": "x"}},
        )
        assert (sent.status_code, sent.json()["connections"]) == (200, 2)
        for client in clients:
            said = await client.json()
            assert (said["e"], said["d"], said["x"], said["i"]) == (
                "hello",
                {"a": 1},
                {"category": "x"},
                sent.json()["message_id"],
            )


async def test_a_connection_is_left_out_and_not_counted() -> None:  # S2-23, S2-92, S4-10
    async with with_clients() as (cluster, clients):
        for client in clients:
            await subscribed(client, "user:anna")
        body = {"user_id": "anna", "message": {"type": "x"}, "exclude_connection": clients[0].connection}
        sent = (await cluster.call("POST", "/send-to-user", body)).json()
        assert (sent["connections"], sent["offset"]) == (1, 1)
        assert (await clients[1].json())["e"] == "x"
        assert (await clients[0].ask({"t": "ping", "i": "p"}))["t"] == "pong"


async def test_a_message_to_a_user_who_is_away_waits() -> None:
    async with with_clients() as (cluster, clients):
        sent = await cluster.call("POST", "/send-to-user", {"user_id": "bob", "message": {"text": "later"}})
        assert sent.json()["connections"] == 0
        await clients[0].say({"t": "sub", "c": "user:bob", "d": {"start": True}, "i": "1"})
        said = [await clients[0].json() for _ in range(2)]
        assert [(each.get("e"), each.get("d")) for each in said if each["t"] == "pub"] == [
            ("message", {"text": "later"})
        ]


async def test_a_broadcast_reaches_those_who_have_subscribed_nothing() -> None:  # S3-05, S4-12, S4-43
    async with with_clients() as (cluster, clients):
        sent = (await cluster.call("POST", "/broadcast", {"message": {"type": "notice", "data": {}}})).json()
        assert sent["connections"] == 2
        for client in clients:
            assert (await client.json())["e"] == "notice"


async def test_a_message_to_one_connection_reaches_it_alone() -> None:  # S3-04
    async with with_clients(None) as (cluster, clients):
        body = {"connection_id": clients[1].connection, "message": {"type": "hello", "data": {"a": 1}}}
        assert (await cluster.call("POST", "/send-to-connection", body)).status_code == 200
        said = await clients[1].json()
        assert (said["type"], said["data"]) == ("hello", {"a": 1})
        gone = {"connection_id": "x-1", "message": {"type": "hello"}}
        assert (await cluster.call("POST", "/send-to-connection", gone)).status_code == 404


async def test_a_batch_that_is_sent_again_is_stored_once_and_faults_are_those_of_one_message() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            messages: list[dict[str, Any]] = [
                {"channel": "doc:1", "event": "a", "data": 1, "deduplication_id": f"{number:016}"}
                for number in range(3)
            ]
            bad = [{"channel": "nothing"}, {"channel": "tasks:running"}, {"channel": "doc:1", "extra": {"Bad Key": 1}}]
            first = (await cluster.call("POST", "/publish", {"messages": messages + bad})).json()
            assert (first["published"], first["failed"]) == (3, 3)
            assert [each["error"] for each in first["results"][3:]] == [
                "bad_channel",
                "permission_denied",
                "bad_message",
            ]
            again = (await cluster.call("POST", "/publish", {"messages": messages})).json()
            assert [(each["offset"], each["duplicate"]) for each in again["results"]] == [
                (1, True),
                (2, True),
                (3, True),
            ]
            assert [each["message_id"] for each in again["results"]] == [
                each["message_id"] for each in first["results"][:3]
            ]
            page = (await cluster.call("GET", "/channels/doc:1/history")).json()
            assert [each["event"] for each in page["items"]] == ["a"] * 3


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/publish", {"messages": []}, 422),
        ("/publish", {"messages": [{"channel": "a:b", "priority": 10}]}, 422),
        ("/publish", {"messages": [{"channel": "a:b", "odd": 1}]}, 422),
        ("/publish", {"messages": [{"channel": "a:b", "event": "a\u0007"}]}, 422),
        ("/send-to-channel", {"channel": "a", "message": {}}, 400),
        ("/send-to-channel", {"channel": "a:b", "message": {"x": 2**70}}, 400),
        ("/send-to-channel", {"channel": "a:b", "message": []}, 422),
        ("/send-to-channel", {"channel": "a:b", "message": {"type": "x", "y" * 100: 1}}, 400),
        ("/send-to-user", {"user_id": "", "message": {}}, 422),
        ("/send-to-user", {"user_id": "a b", "message": {}}, 400),
        ("/broadcast", {"message": {}, "priority": 3}, 422),
        ("/revoke", {}, 422),
        ("/revoke", {"user_id": "a", "everyone": True}, 422),
        ("/users/disconnect", {}, 422),
    ],
)
async def test_what_cannot_be_done_is_refused_in_one_shape(path: str, body: Any, status: int) -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            answer = await cluster.call("POST", path, body)
            assert answer.status_code == status, answer.text
            assert {"error", "message"} <= set(answer.json())


# --- acting -------------------------------------------------------------------------------------------------------


async def test_an_operator_subscribes_a_connection_and_ends_it() -> None:  # S2-27
    async with with_clients() as (cluster, clients):
        client = clients[1]
        path = f"/connections/{client.connection}"
        assert (await cluster.call("POST", f"{path}/subscribe", {"channel": "doc:7"})).status_code == 200
        said = await client.json()
        assert (said["t"], said["c"]) == ("ok", "doc:7")
        assert (await cluster.call("POST", f"{path}/subscribe", {"channel": "doc:7"})).status_code == 200
        await cluster.call("POST", "/send-to-channel", {"channel": "doc:7", "message": {"type": "x"}})
        assert (await client.json())["e"] == "x"
        assert (await cluster.call("POST", f"{path}/unsubscribe", {"channel": "doc:7"})).status_code == 200
        said = await client.json()
        assert (said["t"], said["c"], said["d"]["message"]) == (
            "unsub",
            "doc:7",
            "an operator has ended this subscription",
        )
        assert (await cluster.call("GET", "/channels")).json()["items"] == []
        for verb in ("subscribe", "unsubscribe"):
            assert (await cluster.call("POST", f"/connections/x-1/{verb}", {"channel": "doc:7"})).status_code == 404


async def test_a_client_and_an_operator_that_subscribe_at_once_leave_nothing_behind() -> None:
    async with with_clients() as (cluster, clients):
        client = clients[0]
        path = f"/connections/{client.connection}/subscribe"
        async with trio.open_nursery() as nursery:
            for number in range(20):
                await client.say({"t": "sub", "c": f"doc:{number % 5}", "i": str(number)})
                nursery.start_soon(cluster.call, "POST", path, {"channel": f"doc:{number % 5}"})
        shown = (await cluster.call("GET", f"/connections/{client.connection}")).json()
        while shown["subscription_count"] < 5:
            shown = (await cluster.call("GET", f"/connections/{client.connection}")).json()
        channels = (await cluster.call("GET", "/channels")).json()["items"]
        assert channels == [{"channel": f"doc:{number}", "subscribers": 1} for number in range(5)]
        await client.stream.aclose()
        while (await cluster.call("GET", "/channels")).json()["items"]:
            await trio.sleep(0.01)


@pytest.mark.parametrize(("subprotocol", "code"), [("fanline.v1.json", 4011), (None, 1000)])
async def test_a_connection_that_is_closed_does_not_come_back_unless_it_is_asked_to(
    subprotocol: str | None, code: int
) -> None:
    async with with_clients(subprotocol) as (cluster, clients):
        one, other = clients
        closed = await cluster.call("POST", f"/connections/{one.connection}/disconnect")
        assert (closed.status_code, closed.json()["disconnected"]) == (200, 1)
        assert (await one.closed())[0] == code
        path = f"/connections/{other.connection}/disconnect"
        assert (await cluster.call("POST", path, {"reconnect": True})).status_code == 200
        assert (await other.closed())[0] == 1013
        assert (await cluster.call("POST", path)).status_code == 404


async def test_a_user_without_connections_has_nothing_to_close_or_to_ping() -> None:
    async with with_clients() as (cluster, _):
        closed = await cluster.call("POST", "/users/disconnect", {"user_id": "anna"})
        assert (closed.status_code, closed.json()["disconnected"]) == (200, 0)
        assert (await cluster.call("POST", "/ping/anna")).json()["connections"] == []


async def test_the_connections_of_a_user_are_found_pinged_and_closed_on_every_worker() -> (
    None
):  # S4-41, S4-44, S4-46, S4-47
    tokens = TokenSettings(secret=SECRET)
    access = Access(AuthMode.TOKEN, tokens, None, make_verifier(tokens))
    shown = f"Bearer {sign({'exp': time.time() + 600, 'sub': 'anna', 'username': 'Anna'}, SECRET.encode())}"
    with trio.fail_after(30):
        async with managed(access) as cluster, AsyncExitStack() as stack, trio.open_nursery() as nursery:
            clients = list[RawClient]()
            for engine in (cluster.one, cluster.other):
                client = await stack.enter_async_context(connect_raw(engine.host, engine.port))
                await client.upgrade(Authorization=shown)
                client.answers_pings = True
                assert (await client.json())["d"]["user"] == "anna"
                clients.append(client)
            users = (await cluster.call("GET", "/online-users")).json()["items"]
            assert users == [{"user_id": "anna", "connections": 2}]
            page = (await cluster.call("GET", "/users/anna/connections")).json()
            assert [each["metadata"]["username"] for each in page["items"]] == ["Anna", "Anna"]
            codes = list[int]()

            async def read_to_the_end(client: RawClient) -> None:
                codes.append((await client.closed())[0])

            for client in clients:
                nursery.start_soon(read_to_the_end, client)
            pinged = (await cluster.call("POST", "/ping/anna")).json()["connections"]
            assert len(pinged) == 2
            assert all(0 <= each["seconds"] < 1.5 for each in pinged)
            closed = (await cluster.call("POST", "/users/disconnect", {"user_id": "anna"})).json()
            assert closed["disconnected"] == 2
            while len(codes) < 2:
                await trio.sleep(0.01)
            assert codes == [4011, 4011]


# --- tasks --------------------------------------------------------------------------------------------------------


async def test_a_task_without_a_producer_can_only_be_ended_by_force() -> None:
    async with with_clients() as (cluster, clients):
        await subscribed(clients[0], "task:7")
        started = {"messages": [{"channel": "task:7", "event": "task_progress", "data": {"percent": 1}}]}
        assert (await cluster.call("POST", "/publish", started)).json()["published"] == 1
        assert (await clients[0].json())["d"]["percent"] == 1
        refused = await cluster.call("POST", "/tasks/7/cancel")
        assert (refused.status_code, refused.json()["error"]) == (409, "no_producer")
        forced = await cluster.call("POST", "/tasks/7/cancel", {"force": True})
        assert forced.status_code == 200, forced.text
        said = await clients[0].json()
        assert (said["e"], said["d"]["by"]) == ("task_cancelled", OPERATOR)
        assert (await cluster.call("GET", "/tasks/7")).json()["state"] == "cancelled"
        ended = await cluster.call("POST", "/tasks/7/approve")
        assert (ended.status_code, ended.json()["error"]) == (409, "task_ended")
        assert (await cluster.call("POST", "/tasks/8/cancel")).status_code == 404
