"""The calls of the management API, on a cluster of two engines with real connections."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AuthMode, TokenSettings
from fanline.engine.bus.memory import MemoryBus
from fanline.engine.cluster.members import Members
from fanline.engine.cluster.shares import SHARES
from fanline.engine.tasks.monitor.holdings import lease_key
from fanline.engine.tasks.monitor.lease import value_of
from fanline.engine.tasks.monitor.stored.fresh_table import COMPLETE
from fanline.engine.tasks.monitor.stored.fresh_table import SUBJECT as TABLE_SUBJECT
from fanline.protocol.auth.tokens import sign
from fanline.protocol.compat.escapes import inbox_name
from fanline.protocol.hooks.counters import COUNTERS_SUBJECT, HandlersCounters, HookCounters
from fanline.protocol.nats.names import Bucket
from fanline.workers.access import make_verifier
from fanline.workers.control.canary import fly
from fanline.workers.control.cluster import Cluster
from tests.engine.running import running_engine
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


async def test_the_server_says_how_it_is_reached_and_how_many_it_takes() -> None:  # S2-90
    with trio.fail_after(30):
        async with managed() as cluster:
            info = (await cluster.call("GET", "/info")).json()
            assert (info["endpoint"], info["max_connections"]) == ("/ws", None)
            assert {"fanline.v1.json", "fanline.v1.cbor", "plain"} <= set(info["protocols"])


async def test_the_connections_of_a_user_are_found_on_all_workers() -> None:  # S4-08
    async with with_clients(None) as (cluster, clients):
        for client, user in zip(clients, ("anna", "anna"), strict=True):
            await client.ask({"type": "connect", "user_id": user})
        found = (await cluster.call("GET", "/users/anna/connections")).json()
        assert sorted(each["connection_id"] for each in found["items"]) == sorted(each.connection for each in clients)
        assert (found["total"], {each["user_id"] for each in found["items"]}) == (2, {"anna"})
        assert (await cluster.call("GET", "/online-users")).json()["items"] == [{"user_id": "anna", "connections": 2}]
        assert (await cluster.call("GET", "/users/bob/connections")).json()["items"] == []


async def test_the_connections_of_a_session_are_found_on_all_workers() -> None:  # S4-09
    async with with_clients() as (cluster, clients):
        for client in clients:
            await subscribed(client, "session:7")
        await subscribed(clients[0], "session:8")
        for session, members in (("7", clients), ("8", clients[:1]), ("9", [])):
            found = (await cluster.call("GET", f"/connections?channel=session:{session}")).json()["items"]
            assert {each["connection_id"] for each in found} == {each.connection for each in members}
        stats = (await cluster.call("GET", "/stats")).json()
        assert (stats["active_sessions"], stats["total_session_connections"]) == (2, 2)


async def test_pages_have_every_connection_once() -> None:  # S4-40
    async with with_clients() as (cluster, clients):
        page = (await cluster.call("GET", "/connections?limit=1")).json()
        found = list(page["items"])
        while page["next"] is not None:
            page = (await cluster.call("GET", f"/connections?limit=1&after={page['next']}")).json()
            found += page["items"]
        # Both engines are in one process, and so their ids have one beginning.
        assert sorted(each["connection_id"] for each in found) == sorted(client.connection for client in clients)


async def test_the_hooks_of_any_server_are_counted_though_the_one_that_is_asked_has_none() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            assert (await cluster.call("GET", "/stats")).json()["hooks"] == []
            elsewhere = HandlersCounters("web-2/7", [HookCounters(function="f", name="subscribed", calls=3)], [])
            bus = MemoryBus(cluster.one.broker)
            await bus.answer(COUNTERS_SUBJECT, lambda _, respond: respond(msgspec.json.encode(elsewhere)))
            (found,) = (await cluster.call("GET", "/stats")).json()["hooks"]
            assert (found["function"], found["calls"]) == ("f", 3)


async def test_the_canary_comes_back() -> None:  # S4-42
    with trio.fail_after(30):
        async with managed() as cluster:
            health = await cluster.call("GET", "/health")
            assert health.status_code == 200, health.text
            assert health.json()["socket"]["ok"]
            assert 0 < health.json()["socket"]["seconds"] < 5


@pytest.mark.parametrize("half", ["\ud800", {"\ud800": 1}, ["a", "\udfff"]])
async def test_half_a_character_costs_its_own_message_of_a_batch_alone(half: Any) -> None:
    async with with_clients() as (cluster, _):
        messages = [{"channel": "user:anna", "data": data} for data in (1, half, 2)]
        body = json.dumps({"messages": messages}).encode()
        answer = await cluster.call("POST", "/publish", content=body)
        assert answer.status_code == 200, answer.text
        assert [each["error"] for each in answer.json()["results"]] == [None, "bad_message", None]


async def test_names_with_slashes_and_percent_signs_stand_in_paths() -> None:
    async with with_clients(None) as (cluster, (client, _)):
        await client.ask({"type": "connect", "user_id": "team/anna %2F"})
        found = (await cluster.call("GET", "/users/team%2Fanna%20%252F/connections")).json()
        assert [each["user_id"] for each in found["items"]] == ["team/anna %2F"]
        messages = [{"channel": channel, "data": channel} for channel in ("task:a/b", "task:a/history", "task:a")]
        assert (await cluster.call("POST", "/publish", {"messages": messages})).json()["published"] == 3
        for path, data in (("a%2Fb", "task:a/b"), ("a%2Fhistory", "task:a/history"), ("a", "task:a")):
            history = (await cluster.call("GET", f"/channels/task:{path}/history")).json()
            assert [each["data"] for each in history["items"]] == [data]
            assert (await cluster.call("GET", f"/channels/task:{path}")).json()["channel"] == data
        assert (await cluster.call("GET", "/channels/task:a/b")).status_code == 404
        assert (await cluster.call("GET", "/users/%FF/connections")).status_code == 400


async def test_no_call_is_redirected_to_an_address_that_the_client_has_named() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            assert (await cluster.call("GET", "/info/")).status_code == 404


async def test_a_slot_that_nobody_serves_is_named_and_one_that_was_replaced_meanwhile_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with trio.fail_after(60):
        async with managed(workers=3) as cluster, trio.open_nursery() as nursery:
            server = (await cluster.call("GET", "/info")).json()["server"]
            ill = await cluster.call("GET", "/health")
            assert (ill.status_code, ill.json()["socket"]["ok"]) == (503, True)
            assert ill.json()["workers"]["message"] == f"no answer from worker-2 of {server}"
            assert ill.json()["coverage"] == {"answered": 2, "missing": [f"worker-2 of {server}"]}
            monkeypatch.setattr("fanline.workers.control.health._START_SECONDS", 50.0)
            monkeypatch.setattr("fanline.workers.control.health._PATIENCE_SECONDS", 55.0)
            found = list[httpx.Response]()

            async def ask_health() -> None:
                found.append(await cluster.call("GET", "/health"))

            nursery.start_soon(ask_health)
            await trio.sleep(0.3)
            assert not found
            async with running_engine(broker=cluster.one.broker, name="worker-2"):
                while not found:
                    await trio.sleep(0.05)
            assert found[0].status_code == 200, found[0].text


async def test_a_worker_that_does_not_answer_is_no_part_of_the_canarys_way() -> None:
    with trio.fail_after(30):
        async with managed() as cluster:
            members = Members(cluster.one.bus, "control")
            await cluster.one.bus.kv_put(Bucket.WORKERS, "dead", b"{}", 600)
            url = f"ws://{cluster.one.host}:{cluster.one.port}/ws"
            assert await fly(url, Cluster(cluster.one.bus, members, seconds=10.0)) < 5


async def test_no_call_puts_a_client_on_the_monitors_channel() -> None:
    async with with_clients() as (cluster, (client, _)):
        path = f"/connections/{client.connection}/subscribe"
        refused = await cluster.call("POST", path, {"channel": "monitor:all"})
        assert (refused.status_code, refused.json()["where"]) == (403, "body.channel")
        assert (await cluster.call("POST", path, {"channel": "news:all"})).status_code == 200
        listed = (await cluster.call("GET", f"/connections/{client.connection}")).json()
        assert "monitor:all" not in str(listed)


@pytest.mark.parametrize("depth", [70, 300])
async def test_a_notification_that_nobody_could_be_sent_is_refused_at_once(depth: int) -> None:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    async with with_clients() as (cluster, _):
        refused = await cluster.call("POST", "/notify", {"user": "anna", "title": "T", "data": {"a": data}})
        assert (refused.status_code, refused.json()["message"]) == (422, "nested deeper than 64 levels")
        refused = await cluster.call("POST", "/notify", {"user": "anna", "title": "T", "action_url": "javascript:x"})
        expected = "action_url: expected a URL or a path, and none that runs a script"
        assert (refused.status_code, refused.json()["message"]) == (422, expected)


@pytest.mark.parametrize("several", ["*", "@admins"])
async def test_several_users_have_no_preferences(several: str) -> None:
    async with with_clients() as (cluster, _):
        refused = await cluster.call("POST", f"/users/{several}/preferences", {"email": "anna@example.com"})
        assert (refused.status_code, refused.json()["where"]) == (422, "path.user_id")


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


@pytest.mark.parametrize("user", ["anna", "anna b", "ä", "*"])
async def test_a_user_of_any_name_is_reached(user: str) -> None:
    async with with_clients() as (cluster, clients):
        await subscribed(clients[0], inbox_name(user))
        sent = (await cluster.call("POST", "/send-to-user", {"user_id": user, "message": {"type": "x"}})).json()
        assert sent["connections"] == 1
        assert (await clients[0].json())["e"] == "x"


async def test_a_message_to_a_user_who_is_away_waits() -> None:
    async with with_clients() as (cluster, clients):
        sent = await cluster.call("POST", "/send-to-user", {"user_id": "bob", "message": {"text": "later"}})
        assert sent.json()["connections"] == 0
        await clients[0].say({"t": "sub", "c": "user:bob", "d": {"start": True}, "i": "1"})
        said = [await clients[0].json() for _ in range(2)]
        assert [(each.get("e"), each.get("d")) for each in said if each["t"] == "pub"] == [
            ("message", {"text": "later"})
        ]


async def test_an_operator_speaks_to_all_and_to_one_user_and_closes_a_connection() -> None:  # S4-75
    async with with_clients() as (cluster, clients):
        one, other = clients
        await subscribed(one, "user:anna")
        body = {"message": {"type": "maintenance", "data": {"minutes": 5}}}
        assert (await cluster.call("POST", "/broadcast", body)).json()["connections"] == 2
        assert [(await client.json())["e"] for client in clients] == ["maintenance"] * 2
        notice = {"user_id": "anna", "message": {"type": "notification", "data": {"title": "hello"}}}
        assert (await cluster.call("POST", "/send-to-user", notice)).json()["connections"] == 1
        assert (await one.json())["e"] == "notification"
        assert (await cluster.call("POST", f"/connections/{other.connection}/disconnect")).status_code == 200
        assert (await other.closed())[0] == 4011
        assert (await one.ask({"t": "ping", "i": "p"}))["t"] == "pong"


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
        ("/send-to-user", {"user_id": "ä" * 100, "message": {}}, 400),
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


async def both_hold_tasks(cluster: Managed) -> None:
    """Until no share of the tasks is on its way from the first worker to the second."""
    bus, holders = MemoryBus(cluster.one.broker), set[str]()
    while len(holders) < 2 or "" in holders:  # "": of a share that was given up for the other one
        holders = {value_of(await bus.kv_get(Bucket.LEASES, lease_key(share))).worker for share in range(SHARES)}
        await trio.sleep(0.01)
    while await bus.ask(TABLE_SUBJECT, b"publish", 1.0) != COMPLETE:  # the tasks of all shares are known
        await bus.ask_all(TABLE_SUBJECT, b"leave", 1.0, 2)


async def test_new_tasks_are_listed_while_their_shares_go_from_one_worker_to_another() -> None:
    with trio.fail_after(60):
        async with managed() as cluster, trio.open_nursery() as nursery:
            divided, names = trio.Event(), list[str]()

            async def wait() -> None:
                await both_hold_tasks(cluster)
                divided.set()

            nursery.start_soon(wait)
            while not divided.is_set():
                names.append(f"t{len(names):03}")
                message = {"channel": f"task:{names[-1]}", "event": "task_started", "data": {}}
                assert (await cluster.call("POST", "/publish", {"messages": [message]})).json()["published"] == 1
                items = (await cluster.call("GET", "/tasks?limit=500")).json()["items"]
                assert sorted(each["task_id"] for each in items) == names
                await trio.sleep(0.05)


async def test_tasks_are_listed_as_soon_as_they_are_heard_of_page_by_page() -> None:
    with trio.fail_after(60):
        async with managed() as cluster:
            await both_hold_tasks(cluster)
            names = [f"t{number}" for number in range(7)]
            announced = {"event": "task_started", "data": {}}
            progress = {"event": "task_progress", "data": {"percent": 1}}
            messages = [{"channel": f"task:{name}", **(announced if name < "t2" else progress)} for name in names]
            assert (await cluster.call("POST", "/publish", {"messages": messages})).json()["published"] == 7

            async def listed(limit: int, more: str = "") -> list[str]:
                """All pages."""
                found, after = list[str](), ""
                while True:
                    page = (await cluster.call("GET", f"/tasks?limit={limit}&after={after}{more}")).json()
                    assert len(page["items"]) <= limit
                    found += [each["task_id"] for each in page["items"]]
                    if page["next"] is None:
                        return found
                    after = page["next"]

            assert sorted(await listed(100)) == names
            while "/" in (await cluster.call("GET", "/tasks?limit=2")).json()["next"]:  # until t0 and t1 are recorded
                await trio.sleep(0.05)
            for limit in (1, 2, 3, 100):
                assert sorted(await listed(limit)) == names
            assert sorted(await listed(3, "&state=running")) == names
            assert await listed(3, "&ended=true") == []


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
