"""Tokens on the wire: where they may stand, what they open, and how a connection goes on with another one."""

import base64
import json
import time
from typing import Any

import pytest
import trio

from fanline.engine.access.settings import AccessSettings
from fanline.engine.sessions.store import SessionStore
from fanline.engine.settings import EngineSettings
from fanline.protocol.auth.request_token import TOKEN_SUBPROTOCOL
from tests.engine.access.clients import token, token_access
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect_raw, upgrade_request

TASKS = {"task:*": ["sub", "pub", "call"]}


async def refused(engine: RunningEngine, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(request)
        return await client.read_http()


def places(text: str, subprotocol: str | None) -> list[bytes]:
    """A handshake for each place where a token may stand."""
    offered = f"{TOKEN_SUBPROTOCOL}{text}, {subprotocol}"
    return [
        upgrade_request(subprotocol=subprotocol, Authorization=f"Bearer {text}"),
        upgrade_request(subprotocol=subprotocol, Authorization=f"bearer  {text}"),
        upgrade_request(f"/ws?token={text}", subprotocol=subprotocol),
        upgrade_request(f"/ws?a=1&token={text}&x=", subprotocol=subprotocol),
        upgrade_request(subprotocol=subprotocol, Cookie=f"a=b; session={text}; c=d"),
        *([upgrade_request(subprotocol=offered)] if subprotocol else []),
    ]


async def opened(client: RawClient, request: bytes) -> bytes:
    """Shake hands with this request; the head of the answer."""
    await client.send(request)
    return await client.read_head()


@pytest.mark.parametrize("subprotocol", ["fanline.v1.json", None])
async def test_a_token_is_taken_from_each_of_its_places(subprotocol: str | None) -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access(cookie="session")) as engine:
            for request in places(token(channels=TASKS), subprotocol):
                async with connect_raw(engine.host, engine.port) as client:
                    assert (await opened(client, request)).startswith(b"HTTP/1.1 101 "), request
                    welcome = await client.json()
                    if subprotocol:
                        assert welcome["d"]["user"] == "anna"


async def test_the_token_of_a_subprotocol_is_never_echoed() -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            head = await opened(client, upgrade_request(subprotocol=f"fanline.token.{token()}, fanline.v1.cbor"))
            assert b"Sec-WebSocket-Protocol: fanline.v1.cbor\r\n" in head
            assert b"fanline.token" not in head


@pytest.mark.parametrize(
    "request_bytes",
    [
        upgrade_request(f"/ws?token={token()}", Authorization=f"Bearer {token()}"),
        upgrade_request(f"/ws?token={token()}&token={token()}"),
        upgrade_request(f"/ws?token={token()}", subprotocol=f"fanline.token.{token()}, fanline.v1.json"),
        upgrade_request(subprotocol=f"fanline.token.{token()}"),
        upgrade_request(f"/ws?{'&'.join('a=b' for _ in range(100))}"),
        upgrade_request().replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n"),
    ],
)
async def test_two_tokens_or_one_without_a_subprotocol_are_refused(request_bytes: bytes) -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine:
            status, _, body = await refused(engine, request_bytes)
            assert status == 400
            assert b'"error":"bad_request"' in body
            assert b"eyJ" not in body


BAD = [None, "rubbish", token(ends_in=-60), token(secret="another secret that is long enough")]


@pytest.mark.parametrize("bad", BAD)
async def test_a_plain_client_is_refused_before_the_upgrade(bad: str | None) -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine:
            path = "/ws" if bad is None else f"/ws?token={bad}"
            status, headers, body = await refused(engine, upgrade_request(path, subprotocol=None))
            assert status == 401
            said = "Authentication required" if bad is None else "Invalid token"
            assert json.loads(body) == {"error": "unauthenticated", "message": said}
            scheme, _, why = headers["www-authenticate"].partition(" ")
            assert scheme == "Bearer"
            assert why.startswith('error="invalid_token", error_description="') == (bad is not None)
            assert bad is None or bad not in why


@pytest.mark.parametrize("bad", BAD[1:])
async def test_a_v1_client_is_told_after_the_upgrade_which_its_browser_would_hide_before(bad: str) -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await opened(client, upgrade_request(Authorization=f"Bearer {bad}"))
            answer = await client.json()
            assert (answer["t"], answer["d"]["code"]) == ("err", "unauthenticated")
            assert await client.closed() == (4401, "no valid token")


async def test_a_stranger_may_only_authenticate_and_then_may_what_its_token_says() -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade()
            assert (await client.json())["d"]["user"] is None
            for command in (
                {"t": "sub", "c": "task:1"},
                {"t": "pub", "c": "task:1", "d": 1},
                {"t": "call", "c": "task:1"},
            ):
                answer = await client.ask({"v": 1, "i": "1", **command})
                assert (answer["t"], answer["d"]["code"]) == ("err", "unauthenticated")
            assert (await client.ask({"v": 1, "t": "ping", "i": "2"}))["t"] == "pong"
            answer = await client.ask({"v": 1, "t": "auth", "i": "3", "d": {"token": token(channels=TASKS)}})
            assert (answer["i"], answer["d"]["user"]) == ("3", "anna")
            assert abs(answer["d"]["expires"] / 1000 - time.time() - 60) < 5
            assert (await client.ask({"v": 1, "t": "sub", "c": "task:1", "i": "4"}))["t"] == "ok"
            assert (await client.ask({"v": 1, "t": "sub", "c": "doc:1", "i": "5"}))["d"]["code"] == "permission_denied"


@pytest.mark.parametrize("data", [None, {}, {"token": "rubbish"}, {"session": "a"}])
async def test_a_stranger_that_fails_to_authenticate_is_told_why_and_let_go(data: Any) -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade()
            await client.json()
            answer = await client.ask({"v": 1, "t": "auth", "i": "1", "d": data})
            assert (answer["i"], answer["d"]["code"]) == ("1", "unauthenticated")
            assert (await client.closed())[0] == 4401


async def test_a_stranger_that_stays_silent_is_let_go_whatever_else_it_sends() -> None:
    settings = EngineSettings(heartbeat=30, idle_timeout=60)
    with trio.fail_after(20):
        async with running_engine(settings, access=token_access(timeout=1.0)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                async with trio.open_nursery() as nursery:

                    async def keep_talking() -> None:
                        while True:
                            await client.say({"v": 1, "t": "ping"})
                            await trio.sleep(0.1)

                    nursery.start_soon(keep_talking)
                    assert await client.closed() == (4401, "no valid token")
                    nursery.cancel_scope.cancel()


async def test_a_new_token_swaps_the_rights_in_place_and_ends_what_is_no_longer_allowed() -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade(Authorization=f"Bearer {token(channels={'task:1': ['sub'], 'task:2': ['sub']})}")
            await client.json()
            for channel in ("task:1", "task:2"):
                assert (await client.ask({"v": 1, "t": "sub", "c": channel, "i": channel}))["t"] == "ok"
            shown = token(channels={"task:2": ["sub"], "doc:1": ["sub", "pub"]})
            ended = await client.ask({"v": 1, "t": "auth", "i": "a", "d": {"token": shown}})
            assert (ended["t"], ended["c"], ended["d"]["code"]) == ("unsub", "task:1", "permission_denied")
            assert (await client.json())["i"] == "a"
            assert (await client.ask({"v": 1, "t": "sub", "c": "doc:1", "i": "s"}))["t"] == "ok"
            assert (await client.ask({"v": 1, "t": "pub", "c": "task:2", "i": "p"}))["d"]["code"] == "permission_denied"
            answer = await client.ask({"v": 1, "t": "unsub", "c": "task:1", "i": "u"})
            assert answer["d"]["code"] == "not_subscribed"


async def test_a_token_of_another_user_or_a_bad_one_changes_nothing() -> None:
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade(Authorization=f"Bearer {token(channels=TASKS)}")
            await client.json()
            for shown, code in ((token("bob", channels=TASKS), "permission_denied"), ("rubbish", "unauthenticated")):
                answer = await client.ask({"v": 1, "t": "auth", "i": "a", "d": {"token": shown}})
                assert answer["d"]["code"] == code
            assert (await client.ask({"v": 1, "t": "sub", "c": "task:1", "i": "s"}))["t"] == "ok"


async def test_an_ending_token_is_announced_and_the_connection_ends_after_the_grace() -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access(grace=1.0)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                ends = time.time() + 1.5
                await client.upgrade(Authorization=f"Bearer {token(exp=ends)}")
                await client.json()
                announced = await client.json()
                assert (announced["t"], announced["d"]["expires"]) == ("auth", int(ends * 1000))
                assert time.time() < ends
                assert (await client.closed())[0] == 4401
                assert time.time() >= ends + 1.0


async def test_a_client_that_shows_a_new_token_in_time_stays() -> None:
    with trio.fail_after(20):
        async with running_engine(access=token_access(grace=0.5)) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade(Authorization=f"Bearer {token(ends_in=0.2)}")
                await client.json()
                assert (await client.json())["t"] == "auth"
                answer = await client.ask({"v": 1, "t": "auth", "i": "a", "d": {"token": token()}})
                assert answer["t"] == "ok"
                with trio.move_on_after(1.5):
                    pytest.fail(f"heard {await client.message()}")
                assert (await client.ask({"v": 1, "t": "ping", "i": "1"}))["t"] == "pong"


async def test_anonymous_clients_have_their_rights_and_may_become_somebody() -> None:
    access = token_access(AccessSettings(anonymous=("task:*:sub",)))
    with trio.fail_after(10):
        async with running_engine(access=access) as engine, connect_raw(engine.host, engine.port) as client:
            await client.upgrade()
            assert (await client.json())["d"]["user"] is None
            assert (await client.ask({"v": 1, "t": "sub", "c": "task:1", "i": "1"}))["t"] == "ok"
            assert (await client.ask({"v": 1, "t": "pub", "c": "task:1", "i": "2"}))["d"]["code"] == "permission_denied"
            answer = await client.ask({"v": 1, "t": "auth", "i": "3", "d": {"token": token(channels=TASKS)}})
            assert answer["d"]["user"] == "anna"
            assert (await client.ask({"v": 1, "t": "pub", "c": "doc:1", "d": 1, "i": "4"}))["t"] == "err"
            assert (await client.ask({"v": 1, "t": "sub", "c": "user:anna", "i": "5"}))["t"] == "ok"


async def test_a_session_is_its_users_from_the_moment_that_the_client_has_shown_a_token() -> None:
    access = token_access(AccessSettings(anonymous=("task:*:sub",)))
    with trio.fail_after(10):
        async with running_engine(access=access) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.upgrade()
                session = (await client.json())["d"]["session"]
                assert (await client.ask({"v": 1, "t": "sub", "c": "task:1", "i": "1"}))["t"] == "ok"
                shown = {"token": token(channels=TASKS)}
                assert (await client.ask({"v": 1, "t": "auth", "i": "2", "d": shown}))["t"] == "ok"
                store = SessionStore(engine.bus)
                while (stored := await store.find(session)) is None or stored.user is None:
                    await trio.sleep(0.05)
            async with connect_raw(engine.host, engine.port) as client:
                await opened(client, upgrade_request(Authorization=f"Bearer {token(channels=TASKS)}"))
                await client.json()
                assert (await client.ask({"v": 1, "t": "auth", "i": "3", "d": {"session": session}}))["c"] == "task:1"
                assert (await client.json())["d"]["resumed"] is True


async def test_nothing_of_a_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    shown = [token(), token(secret="another secret that is long enough"), token(ends_in=-60), f"{token()}x"]
    with trio.fail_after(20):
        async with running_engine(access=token_access(cookie="session")) as engine:
            for text in shown:
                for subprotocol in ("fanline.v1.json", None):
                    for request in places(text, subprotocol):
                        async with connect_raw(engine.host, engine.port) as client:
                            await client.send(request)
                            await client.stream.receive_some()
    for text in shown:
        for secret in (text, *text.split("."), base64.urlsafe_b64encode(text.encode()).decode()):
            assert len(secret) < 8 or secret not in caplog.text
