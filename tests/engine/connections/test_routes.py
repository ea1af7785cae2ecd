"""Routes on the wire: who gets in by which, and what a client hears and has joined when it is in."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.settings import AccessSettings
from fanline.engine.bus.memory import MemoryBroker
from fanline.engine.namespaces import DEFAULTS as NAMESPACES
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.routes import DEFAULTS, Overflow, Route, Serves, Speech
from fanline.engine.settings import EngineSettings
from fanline.protocol.auth.revocation import Revocation, encode_revocation
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.errors import CloseReason
from fanline.protocol.nats.names import Bucket
from tests.engine.access.application.answering import answering, client_of
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw, upgrade_request

DIALECTS = pytest.mark.parametrize("subprotocol", ["fanline.v1.json", "fanline.v1.cbor", None])
V1 = "fanline.v1.json"
PROJECTS = {"project:*": ["sub"], "task:*": ["sub", "call"]}


@asynccontextmanager
async def serving(access: Access | None = None, **routes: Route) -> AsyncIterator[RunningEngine]:
    """`routes`: by their paths without the first slash."""
    settings = EngineSettings(routes={f"/{path}": route for path, route in routes.items()})
    with trio.fail_after(30):
        async with running_engine(settings, access=access) as engine:
            yield engine


async def refused(
    engine: RunningEngine, path: str, subprotocol: str | None = None, **headers: str
) -> tuple[int, dict[str, str]]:
    """The status and the body of the refusal."""
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(upgrade_request(path, subprotocol=subprotocol, **headers))
        status, _, body = await client.read_http()
        return status, msgspec.json.decode(body, type=dict[str, str])


@asynccontextmanager
async def visiting(
    engine: RunningEngine, path: str, subprotocol: str | None = None, **headers: str
) -> AsyncIterator[RawClient]:
    """A client that has come by a path, and has read nothing yet."""
    async with connect_raw(engine.host, engine.port) as client:
        await client.upgrade(subprotocol, path, **headers)
        yield client


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


async def publish(engine: RunningEngine, channel: str, event: str, data: Any = None) -> None:
    await engine.bus.store(channel, encode_json(Envelope("pub", event=event, data=data)), None)


# --- paths ----------------------------------------------------------------------------------------------------------


@DIALECTS
async def test_a_path_without_a_route_is_not_found_and_the_answer_names_none(subprotocol: str | None) -> None:
    async with serving(ws=Route(enabled=False)) as engine:
        for path in ("/ws", "/wss", "/ws/", "/ws/review", "/ws/review/1/2", "/ws/review/%FF", "/metric"):
            status, body = await refused(engine, path, subprotocol)
            assert (status, body) == (404, {"error": "not_found", "message": "there is nothing at this path"})


@DIALECTS
async def test_each_default_route_that_serves_channels_lets_clients_in(subprotocol: str | None) -> None:
    async with serving() as engine:
        for path, route in DEFAULTS.items():
            if route.dialect is Speech.ANY:
                async with visiting(engine, path.replace("{", "").replace("}", ""), subprotocol) as client:
                    assert (await client.message()).payload


async def test_a_route_may_speak_one_dialect_only() -> None:
    async with serving(old=Route(dialect=Speech.PLAIN), new=Route(dialect=Speech.V1)) as engine:
        for path, subprotocol in (("/old", V1), ("/new", None), ("/ws/health", V1), ("/ws/test/1", V1)):
            status, body = await refused(engine, path, subprotocol)
            assert (status, body["error"]) == (400, "bad_request")
        for path, subprotocol in (("/old", None), ("/new", V1)):
            async with visiting(engine, path, subprotocol) as client:
                assert await client.json()


@DIALECTS
async def test_a_channel_name_that_would_be_too_long_is_a_bad_request(subprotocol: str | None) -> None:
    async with serving() as engine:
        status, body = await refused(engine, f"/ws/task/{'a' * 300}", subprotocol)
        assert (status, body["error"]) == (400, "bad_request")
        assert (await refused(engine, "/ws?project_id=1&project_id=2", subprotocol))[0] == 400


# --- who gets in ----------------------------------------------------------------------------------------------------


async def test_a_plain_client_without_a_right_to_what_the_route_joins_is_refused_before_the_upgrade() -> None:
    async with serving(token_access()) as engine:
        for path, message in (
            ("/ws?project_id=7", "Project access denied"),
            ("/?project_id=7", "Project access denied"),
            ("/ws/board?project_id=7", "Project access denied"),
            ("/ws/review/7", "Task access denied"),
            ("/ws/chat/session/7", "Session access denied"),
        ):
            status, body = await refused(engine, path, **bearer())
            assert (status, body) == (403, {"error": "forbidden", "message": message})


@pytest.mark.parametrize("path", ["/ws?project_id=7", "/ws/review/7"])
async def test_a_v1_client_without_that_right_is_told_so_and_let_go(path: str) -> None:
    async with serving(token_access()) as engine, visiting(engine, path, V1, **bearer()) as client:
        answer = await client.json()
        assert (answer["t"], answer["d"]["code"]) == ("err", "permission_denied")
        assert await client.closed() == (4403, "not allowed here")


@DIALECTS
async def test_a_token_that_is_revoked_while_an_authorizer_is_asked_lets_nobody_in(subprotocol: str | None) -> None:
    namespaces = {**NAMESPACES, "project": Namespace(authorizer="app:authorize")}
    answers = await answering("app:authorize", lambda _: None, MemoryBroker(Namespaces(namespaces)))
    access, settings = token_access(handlers=client_of(answers)), EngineSettings(namespaces=namespaces)
    with trio.fail_after(30):
        async with running_engine(settings, access=access, broker=answers.broker) as engine:

            async def revoke() -> None:
                while not answers.waiting:
                    await trio.sleep(0.01)
                revoked = Revocation(token_id="j1", before=time.time(), until=time.time() + 60)
                await engine.bus.kv_put(Bucket.REVOKED, revoked.key, encode_revocation(revoked), 60)
                await trio.sleep(1.0)  # more than the pause between two looks
                answers.waiting[0](b'{"allow":true}')

            async with trio.open_nursery() as nursery:
                nursery.start_soon(revoke)
                path, headers = "/ws?project_id=7", bearer(jti="j1", iat=time.time() - 1)
                if subprotocol is None:
                    assert (await refused(engine, path, **headers))[0] == 401
                else:
                    async with visiting(engine, path, subprotocol, **headers) as client:
                        assert b"unauthenticated" in (await client.message()).payload
                        assert (await client.closed())[0] == CloseReason.UNAUTHENTICATED.code
            assert engine.server.statistics().channels == 0


async def test_a_v1_client_that_shows_its_token_later_joins_then_or_is_let_go() -> None:
    async with serving(token_access()) as engine:
        for channels, word in ((PROJECTS, "ok"), ({}, "err")):
            async with visiting(engine, "/ws?project_id=7", V1) as client:
                assert (await client.json())["t"] == "welcome"
                answer = await client.ask({"t": "auth", "i": "a", "d": {"token": token(channels=channels)}})
                assert (answer["t"], answer["i"]) == ("ok", "a")
                joined = await client.json()
                assert joined["t"] == word
                if word == "ok":
                    assert (joined["c"], "i" in joined) == ("project:7", False)
                else:
                    assert (await client.closed())[0] == CloseReason.FORBIDDEN.code


@DIALECTS
async def test_a_route_may_let_in_clients_without_a_token_with_rights_of_their_own(subprotocol: str | None) -> None:
    route = Route(anonymous=("doc:*:sub",), joins=("doc:{?topic}", "user:{user}"))
    async with serving(token_access(), news=route) as engine:
        async with visiting(engine, "/news?topic=a", subprotocol) as client:
            assert (await client.message()).payload
            until = trio.current_time() + 10
            while not engine.server.statistics().channels and trio.current_time() < until:
                await trio.sleep(0.01)
            assert engine.server.statistics().channels == 1
        if subprotocol is None:
            assert (await refused(engine, "/ws"))[0] == 401
            assert (await refused(engine, "/news?token=rubbish"))[0] == 401


async def test_what_anonymous_clients_of_a_route_may_do_ends_with_its_grants() -> None:
    access = token_access(AccessSettings(anonymous=("doc:*:sub",)))
    async with serving(access, news=Route(anonymous=("cursor:*:sub",))) as engine:
        for path, granted in (("/news", "cursor:a"), ("/ws", "doc:a")):
            async with visiting(engine, path) as client:
                await client.json()
                for channel in ("cursor:a", "doc:a"):
                    answer = await client.ask({"type": "subscribe", "channel": channel})
                    assert answer["type"] == ("subscription_result" if channel == granted else "error")


async def test_the_routes_for_trying_a_server_out_ask_for_no_token_and_give_no_right() -> None:  # S3-38
    async with serving(token_access()) as engine:
        async with visiting(engine, "/ws/health") as client:
            assert (await client.json())["type"] == "welcome"
            pong = await client.ask({"type": "ping", "timestamp": 1})
            assert (pong["type"], pong["timestamp"], pong["server_time"].isdigit()) == ("pong", 1, True)
            denied = await client.ask({"type": "subscribe", "channel": "project:1"})
            assert (denied["type"], denied["message"]) == ("error", "Channel access denied")
        async with visiting(engine, "/ws/test/%E4%BB%BB?token=rubbish") as client:
            welcome = await client.json()
            assert (welcome["type"], welcome["client_id"]) == ("welcome", "任")
            for sent in ({"type": "subscribe", "channel": "project:1"}, "no JSON"):
                await client.say(sent)
                echo = await client.json()
                assert (echo["type"], echo["client_id"], echo["original_message"]) == ("echo", "任", sent)
        assert engine.server.statistics().channels == 0


async def test_a_route_may_ask_that_its_task_is_known() -> None:
    route = Route(joins=("task:{id}", "doc:all"), must_exist=True)
    access = token_access(AccessSettings(anonymous=("task:4*:sub", "doc:*:sub")))
    async with serving(access, **{"tasks/{id}": route}) as engine:
        await publish(engine, "task:42", "task_created", {})
        async with visiting(engine, "/tasks/42") as client:
            assert (await client.json())["type"] == "connection_established"
        status, body = await refused(engine, "/tasks/43")
        assert (status, body) == (404, {"error": "not_found", "message": "nothing was ever heard of task:43"})
        assert (await refused(engine, "/tasks/5"))[0] == 403  # who may not see it does not learn whether it exists
        async with visiting(engine, "/tasks/43", V1) as client:
            assert (await client.json())["d"]["code"] == "unknown_task"
            assert (await client.closed())[0] == CloseReason.FORBIDDEN.code


# --- connections of one user ----------------------------------------------------------------------------------------


async def test_connections_of_a_user_are_counted_by_route() -> None:
    access = token_access(AccessSettings(connections=1))
    async with serving(access, a=Route(per_user=2), b=Route(per_user=0)) as engine, AsyncExitStack() as stack:
        for path in ("/a", "/a", "/b", "/b", "/b", "/ws"):
            client = await stack.enter_async_context(visiting(engine, path, **bearer()))
            assert (await client.json())["type"] == "connection_established"
        for path, most in (("/a", 2), ("/ws", 1), ("/", 1)):
            status, body = await refused(engine, path, **bearer())
            assert (status, body["error"]) == (429, "limit_exceeded")
            assert f"may have {most} connections" in body["message"]
            async with visiting(engine, path, V1, **bearer()) as late:
                assert (await late.json())["d"]["code"] == "limit_exceeded"
                assert (await late.closed())[0] == CloseReason.LIMITED.code
        await stack.enter_async_context(visiting(engine, "/a", **bearer(user="bob")))


async def test_routes_that_count_together_have_one_number() -> None:
    routes = {name: Route(per_user=2, counted_as="all") for name in ("a", "b")}
    async with serving(token_access(), **routes, c=Route(per_user=2)) as engine, AsyncExitStack() as stack:
        for path in ("/a", "/b", "/c", "/c"):
            client = await stack.enter_async_context(visiting(engine, path, **bearer()))
            assert (await client.json())["type"] == "connection_established"
        for path in ("/a", "/b", "/c"):
            assert (await refused(engine, path, **bearer()))[0] == 429


async def test_a_number_in_a_token_is_one_for_all_routes_together() -> None:
    async with serving(token_access(), a=Route(per_user=5), b=Route(per_user=5)) as engine, AsyncExitStack() as stack:
        for path in ("/a", "/b"):
            await stack.enter_async_context(visiting(engine, path, **bearer(connections=2)))
        assert (await refused(engine, "/a", **bearer(connections=2)))[0] == 429


async def test_a_refused_handshake_leaves_no_place_taken() -> None:
    async with serving(token_access(), a=Route(per_user=1, joins=("project:{?p}",))) as engine:
        for _ in range(3):
            assert (await refused(engine, "/a?p=1", **bearer()))[0] == 403
        async with visiting(engine, "/a", **bearer()) as client:
            assert await client.json()


# --- inside ---------------------------------------------------------------------------------------------------------


async def test_a_route_has_its_own_idle_time() -> None:
    async with serving(short=Route(idle=0.3)) as engine, visiting(engine, "/short") as client:
        assert (await client.closed())[0] == CloseReason.SILENT.code


async def test_a_plain_client_hears_its_inbox_its_project_and_its_greeting_first() -> None:
    async with serving(token_access()) as engine:
        await publish(engine, "user:anna", "notification", {"n": 1})
        async with visiting(engine, "/ws?project_id=a%20b", **bearer(channels=PROJECTS)) as client:
            assert (await client.json())["type"] == "connection_established"
            inbox = await client.json()
            assert (inbox["type"], inbox["channel"]) == ("notification", "user:anna")
            result = await client.ask({"type": "subscribe", "channel": "project:a b"})
            assert (result["type"], result["channel"]) == ("subscription_result", "project:a b")
            await publish(engine, "project:a~20b", "task_created", {})
            created = await client.json()
            assert (created["type"], created["channel"]) == ("task_created", "project:a b")


async def test_a_client_of_a_task_route_hears_status_then_progress_at_the_top_level() -> None:
    async with serving() as engine:
        await publish(engine, "task:123", "task_started", {})
        async with visiting(engine, "/ws/review/123") as client:
            connection = await client.json()
            assert (connection["type"], connection["task_id"]) == ("connection", 123)
            status = await client.json()
            assert (status["type"], status["task_id"], status["status"]) == ("status", 123, "PROCESSING")
            asked = await client.ask({"type": "get_status"})
            assert (asked["type"], asked["task_id"], asked["status"]) == ("status", 123, "PROCESSING")
            await publish(engine, "task:123", "task_progress", {"percent": 40})
            progress = await client.json()
            assert (progress["stage"], progress["progress"], "type" in progress) == ("running", 40, False)


async def test_a_v1_client_has_joined_as_well_and_its_own_sub_is_answered_as_a_first_one() -> None:
    async with serving() as engine:
        await publish(engine, "project:7", "a")
        async with visiting(engine, "/ws?project_id=7", V1) as client:
            assert (await client.json())["t"] == "welcome"
            joined = await client.json()
            assert (joined["t"], joined["c"], "o" in joined, "i" in joined) == ("ok", "project:7", True, False)
            await publish(engine, "project:7", "b")
            assert (await client.json())["e"] == "b"
            for has_position in (True, False):
                answer = await client.ask({"t": "sub", "c": "project:7", "i": "1"})
                assert (answer["t"], "o" in answer) == ("ok", has_position)
            await publish(engine, "project:7", "c")
            assert (await client.json())["e"] == "c"


async def test_a_v1_client_is_not_joined_to_its_inbox_whose_position_it_names_itself() -> None:
    async with serving(token_access()) as engine, visiting(engine, "/ws", V1, **bearer()) as client:
        assert (await client.json())["t"] == "welcome"
        assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
        assert engine.server.statistics().channels == 0


async def test_the_id_of_a_connection_is_no_secret_and_takes_up_no_session() -> None:
    async with serving() as engine:
        async with visiting(engine, "/ws", V1) as client:
            welcome = (await client.json())["d"]
            assert welcome["connection"] not in ("", welcome["session"])
            answer = await client.ask({"t": "auth", "i": "1", "d": {"session": welcome["connection"]}})
            assert answer["d"]["resumed"] is False
        async with visiting(engine, "/ws") as client:
            assert (await client.json())["connection_id"] not in ("", welcome["connection"])


def test_every_option_of_a_route_has_a_test_or_belongs_to_another() -> None:
    """A new option fails here until it has one."""
    assert set(Route.__struct_fields__) == {
        *("enabled", "serves", "dialect", "idle", "greeting", "anonymous", "per_user", "replace", "joins"),
        *("counted_as", "rooms", "flat", "must_exist", "ack", "manages"),
    }
    assert (len(Serves), len(Overflow)) == (3, 2)
