"""Who may call the management API: keys by their rights, admins by their tokens, and nobody else."""

import functools
import json as json_module
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI

from fanline.engine.access.access import Access
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.memory.work import MemoryWork
from fanline.engine.cluster.members import Members
from fanline.engine.namespaces import Namespaces
from fanline.engine.settings import EngineSettings
from fanline.protocol.auth.api_keys import ApiRight, may, read_key
from fanline.protocol.auth.tokens import sign
from fanline.workers.access import make_verifier
from fanline.workers.configuration.settings import Settings
from fanline.workers.control.app import PREFIX, make_app, use_parts
from fanline.workers.control.canary import CanaryError
from fanline.workers.control.cluster import Cluster
from fanline.workers.control.http.callers import Callers
from fanline.workers.control.http.forwarded import Forwarded
from fanline.workers.control.monitoring.alarms import Alarms
from fanline.workers.control.monitoring.announcer import SystemAnnouncer
from fanline.workers.control.monitoring.minutes import Minutes
from fanline.workers.control.notifying.service import Notifications
from fanline.workers.control.parts import ControlParts, audit_of, server_info
from fanline.workers.control.publishing import BackendPublisher
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE
from tests.support.tools.openapi import committed

PAGE = (REFERENCE / "management-api.md").read_text(encoding="utf-8")
SECRET = "s" * 48
TOKENS = TokenSettings(secret=SECRET)
FORWARDED = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
Ask = Callable[..., Awaitable[httpx.Response]]


def parts_of(
    mode: AuthMode,
    tokens: TokenSettings,
    access: AccessSettings | None = None,
    origins: tuple[str, ...] = (),
    audit_log: str = "",
) -> ControlParts:
    """The parts of a server whose bus is in memory, and which has no worker."""
    settings = Settings(
        data_dir="/none", auth=mode, tokens=tokens, engine=EngineSettings(origins=origins, audit_log=audit_log)
    )
    namespaces = Namespaces()
    bus = MemoryBus(MemoryBroker(namespaces))
    keys = ApiKeys(bus)
    callers = Callers(keys, Access(mode, tokens, access, make_verifier(tokens)))
    url = "ws://127.0.0.1:8080/ws"
    info = server_info(settings, namespaces, url, "h/1")
    publisher, audit = BackendPublisher(bus, namespaces), audit_of(settings, bus)
    cluster = Cluster(bus, Members(bus))
    notices = Notifications(settings.notifications, bus, MemoryWork(), namespaces)
    minutes, alarms = Minutes(bus), Alarms(bus, {}, SystemAnnouncer(bus, namespaces, lambda: None))
    return ControlParts(
        settings, namespaces, bus, cluster, keys, callers, audit, publisher, minutes, alarms, info, url, notices
    )


def app_with(parts: ControlParts) -> FastAPI:
    """An application with these parts. Making one takes a tenth of a second, so the tests hand on the same one."""
    app = _app(parts.settings.engine.origins)
    use_parts(app, parts)
    return app


@functools.cache
def _app(origins: tuple[str, ...]) -> FastAPI:
    return make_app(parts_of(AuthMode.TOKEN, TOKENS, origins=origins))


@asynccontextmanager
async def asking(
    mode: AuthMode = AuthMode.TOKEN,
    tokens: TokenSettings = TOKENS,
    access: AccessSettings | None = None,
    origins: tuple[str, ...] = (),
    *,
    audit_log: str = "",
) -> AsyncIterator[tuple[Ask, ApiKeys]]:
    """`ask(path, key, method=..., headers=...)` of a server that is asked by a worker."""
    parts = parts_of(mode, tokens, access, origins, audit_log)
    app = app_with(parts)
    transport = httpx.ASGITransport(app=Forwarded(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:

        async def ask(
            path: str = "/info",
            key: str | None = None,
            *,
            method: str = "GET",
            headers: dict[str, str] | None = None,
            json: Any = None,
        ) -> httpx.Response:
            shown = {} if key is None else {"Authorization": f"Bearer {key}"}
            all_headers = (FORWARDED if headers is None else headers) | shown
            url = f"{PREFIX}{path}" if path not in ("/metrics", "/docs") else path
            as_sent = {name.encode(): value.encode() for name, value in all_headers.items()}
            return await client.request(method, url, headers=as_sent, json=json)

        yield ask, parts.keys


def token(**claims: Any) -> str:
    return sign({"exp": time.time() + 60, **claims}, SECRET.encode())


async def test_a_call_without_a_key_is_refused_and_says_what_to_do() -> None:  # S2-94
    async with asking() as (ask, _):
        answer = await ask()
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert set(answer.json()) == {"error", "message", "help"}


@pytest.mark.parametrize(
    "key",
    [
        "fl_0123456789ab_" + "x" * 43,
        "fl_0123456789ab_x",
        "fl_",
        "x",
        "a.b.c",
        "fl_0123456789ab_" + "x" * 42 + "\u00e9",
    ],
)
async def test_a_key_that_was_never_made_is_refused(key: str) -> None:
    async with asking() as (ask, _):
        assert (await ask(headers=FORWARDED | {"X-API-Key": key})).status_code == 401


async def test_the_id_of_a_key_with_another_secret_is_refused() -> None:
    async with asking() as (ask, keys):
        _, one, _ = await keys.create("one", [ApiRight.ADMIN], None)
        _, other, _ = await keys.create("other", [ApiRight.ADMIN], None)
        assert (await ask(key=one)).status_code == 200
        mixed = one[:16] + other[16:]
        assert read_key(mixed) is not None
        assert (await ask(key=mixed)).status_code == 401


@pytest.mark.parametrize("right", ApiRight)
async def test_a_key_may_do_what_its_right_says_and_nothing_else(right: ApiRight) -> None:
    allowed = {
        "/info": {ApiRight.READ, ApiRight.ADMIN},
        "/tasks?ended=true": {ApiRight.READ, ApiRight.ADMIN},
        "/metrics": {ApiRight.METRICS, ApiRight.READ, ApiRight.ADMIN},
        "/keys": {ApiRight.ADMIN},
    }
    async with asking() as (ask, keys):
        _, key, _ = await keys.create("one", [right], None)
        with trio.fail_after(20):
            for path, rights in allowed.items():
                answer = await ask(path, key)
                assert (answer.status_code == 403) is (right not in rights), path
                assert answer.status_code in (200, 403)


async def test_a_key_works_in_its_own_header_as_well() -> None:
    async with asking() as (ask, keys):
        _, key, _ = await keys.create("one", [ApiRight.READ], None)
        assert (await ask(headers=FORWARDED | {"X-API-Key": key})).status_code == 200


async def test_a_key_that_has_expired_or_was_revoked_is_refused_at_once() -> None:
    async with asking() as (ask, keys):
        _, expired, _ = await keys.create("old", [ApiRight.READ], time.time() - 1)
        key_id, key, _ = await keys.create("one", [ApiRight.READ], None)
        assert (await ask(key=expired)).status_code == 401
        assert (await ask(key=key)).status_code == 200
        assert await keys.revoke(key_id)
        assert (await ask(key=key)).status_code == 401
        assert not await keys.revoke(key_id)


async def test_the_store_holds_no_secret() -> None:
    async with asking() as (_, keys):
        key_id, text, _ = await keys.create("one", [ApiRight.READ], None)
        shown = read_key(text)
        assert shown is not None
        assert shown.id == key_id
        assert shown.secret not in str(await keys.all())


async def test_an_admin_makes_and_revokes_keys() -> None:
    async with asking() as (ask, _):
        admin = token(sub="root", roles=["admin"])
        made = await ask("/keys", admin, method="POST", json={"name": "grafana", "rights": ["metrics"], "days": 30})
        assert made.status_code == 201
        assert (await ask("/metrics", made.json()["key"])).status_code == 200
        listed = (await ask("/keys", admin)).json()
        assert [(each["name"], each["rights"]) for each in listed] == [("grafana", ["metrics"])]
        assert "key" not in listed[0]
        assert (await ask(f"/keys/{listed[0]['id']}", admin, method="DELETE")).status_code == 200
        assert (await ask(f"/keys/{listed[0]['id']}", admin, method="DELETE")).status_code == 404
        assert (await ask("/metrics", made.json()["key"])).status_code == 401


# --- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"sub": "root", "roles": ["admin"]}, 200),
        ({"sub": "root", "roles": ["editor", "super_admin"]}, 200),
        ({"sub": "anna"}, 403),
        ({"sub": "anna", "roles": ["editor"]}, 403),
        ({"sub": "anna", "channels": {"*": ["sub", "pub", "presence", "history", "call"]}}, 403),
        ({"sub": "root", "roles": ["admin"], "exp": 1}, 401),
    ],
)
async def test_only_an_admins_token_will_do(claims: dict[str, Any], status: int) -> None:
    async with asking() as (ask, _):
        assert (await ask(key=token(**claims))).status_code == status


async def test_an_admin_with_another_secret_is_refused() -> None:
    async with asking() as (ask, _):
        forged = sign({"exp": time.time() + 60, "sub": "root", "roles": ["admin"]}, b"t" * 48)
        assert (await ask(key=forged)).status_code == 401


async def test_a_role_that_the_settings_give_less_is_no_admin() -> None:
    access = AccessSettings(roles={"admin": ("doc:*:sub",)})
    async with asking(access=access) as (ask, _):
        assert (await ask(key=token(sub="root", roles=["admin"]))).status_code == 403
        assert (await ask(key=token(sub="root", roles=["super_admin"]))).status_code == 200


# --- modes and entrances ------------------------------------------------------------------------------------------


async def test_development_mode_needs_no_key_but_takes_no_bad_one() -> None:
    async with asking(AuthMode.DEVELOPMENT, TokenSettings()) as (ask, keys):
        assert (await ask()).status_code == 200
        assert (await ask(key="anything")).status_code == 200  # tokens are ignored there, as on a WebSocket
        assert (await ask(key="fl_0123456789ab_" + "x" * 43)).status_code == 401
        _, key, _ = await keys.create("one", [ApiRight.METRICS], None)
        assert (await ask(key=key)).status_code == 403


async def test_open_mode_needs_a_key() -> None:
    async with asking(AuthMode.OPEN, TokenSettings()) as (ask, _):
        assert (await ask()).status_code == 401
        assert (await ask(key="anything")).status_code == 403


async def test_who_asks_without_a_worker_is_the_user_of_the_server() -> None:
    async with asking() as (ask, _):
        assert (await ask("/keys", headers={})).status_code == 200
        assert (await ask("/keys", headers={"X-Forwarded-For": ""})).status_code == 401


async def test_a_worker_is_told_which_callers_are_known() -> None:
    async def is_known(answer: Awaitable[httpx.Response]) -> bool:
        return dict((await answer).headers).get("fanline-caller") == "known"

    async with asking() as (ask, keys):
        _, key, _ = await keys.create("one", [ApiRight.METRICS], None)
        assert await is_known(ask("/metrics", key))
        assert await is_known(ask("/info", key))  # which this key may not
        assert await is_known(ask(key=token(sub="root", roles=["admin"])))
        assert not await is_known(ask())
        assert not await is_known(ask(key=token(sub="anna")))
        assert not await is_known(ask("/docs", key))  # where nobody looks at it
        assert not await is_known(ask(headers={}))
    async with asking(AuthMode.DEVELOPMENT, TokenSettings()) as (ask, _):
        assert not await is_known(ask())
        assert not await is_known(ask(key="anything"))


async def test_a_page_of_an_allowed_origin_is_shown_the_answer() -> None:  # S5-38
    origin = "https://app.example"
    async with asking(origins=(origin,)) as (ask, keys):
        _, key, _ = await keys.create("one", [ApiRight.READ], None)
        answer = await ask(key=key, headers=FORWARDED | {"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert (await ask(method="OPTIONS", headers=FORWARDED | asked)).status_code == 200
        other = await ask(key=key, headers=FORWARDED | {"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_what_describes_the_api_needs_no_key_and_has_the_headers_of_every_answer() -> None:
    async with asking() as (ask, _):
        for path in ("/docs", "/openapi.json"):
            answer = await ask(path)
            assert answer.status_code == 200
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in answer.headers["content-security-policy"]


# --- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "where"),
    [
        ("/tasks?limit=0", 422, "query.limit"),
        ("/tasks?limit=x", 422, "query.limit"),
        ("/tasks?state=odd", 422, "query.state"),
        ("/channels/nocolon", 400, "path.channel"),
        ("/tasks/a%20b", 400, "path.task_id"),
        ("/nothing", 404, None),
    ],
)
async def test_an_error_says_what_is_wrong_and_where(path: str, status: int, where: str | None) -> None:
    async with asking() as (ask, keys):
        _, key, _ = await keys.create("one", [ApiRight.ADMIN], None)
        answer = await ask(path, key)
        assert (answer.status_code, answer.json().get("where")) == (status, where)
        assert answer.json()["error"]
        assert answer.json()["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/nothing"), ("DELETE", "/stats")])
async def test_a_call_that_there_is_not_is_named(method: str, path: str) -> None:
    async with asking() as (ask, keys):
        _, key, _ = await keys.create("one", [ApiRight.ADMIN], None)
        problem = (await ask(path, key, method=method)).json()
        assert problem["message"] == f"there is no {method} {PREFIX}{path}"


async def test_without_a_worker_a_call_is_refused_for_now() -> None:
    with trio.fail_after(20):
        async with asking() as (ask, keys):
            _, key, _ = await keys.create("one", [ApiRight.ADMIN], None)
            for path in ("/stats", "/connections", "/connections/x", "/online-users", "/channels", "/tasks/x"):
                answer = await ask(path, key)
                assert (answer.status_code, answer.json()["message"]) == (503, "no worker answers"), path
                assert answer.headers["retry-after"] == "1"


# --- every call ---------------------------------------------------------------------------------------------------

CALLS = [(method.upper(), path) for path, found in committed()["paths"].items() for method in found]
NEEDS = {row[0].strip("`"): ApiRight(row[1].strip("`")) for row in table(PAGE, "| call | needs |")}
VALUES: dict[str, Any] = {
    "connection_id": "ab-1",
    "user_id": "anna",
    "channel": "news:all",
    "task_id": "7",
    "key_id": "0123456789ab",
    "number": 1,
}
BODIES: dict[str, Any] = {
    "/publish": {"messages": [{"channel": "news:all"}]},
    "/send-to-channel": {"channel": "news:all", "message": {}},
    "/send-to-user": {"user_id": "anna", "message": {}},
    "/send-to-connection": {"connection_id": "ab-1", "message": {}},
    "/broadcast": {"message": {}},
    "/users/disconnect": {"user_id": "anna"},
    "/connections/{connection_id}/subscribe": {"channel": "news:all"},
    "/connections/{connection_id}/unsubscribe": {"channel": "news:all"},
    "/revoke": {"user_id": "anna"},
    "/keys": {"name": "x", "rights": ["read"]},
    "/tasks/{task_id}/input": {"value": 1},
    "/notify": {"user": "anna", "title": "T"},
    "/users/{user_id}/preferences": {"email": "anna@example.com"},
}


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_every_call_is_for_those_who_have_its_right_and_for_nobody_else(
    method: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stay(*_: object) -> float:
        raise CanaryError("there is no server")

    monkeypatch.setattr("fanline.workers.control.health.fly", stay)
    monkeypatch.setattr("fanline.workers.control.health._START_SECONDS", 0.0)  # no worker will ever answer
    call = path.removeprefix(PREFIX)
    right, target, body = NEEDS[f"{method} {call}"], call.format(**VALUES), BODIES.get(call)
    with trio.fail_after(60):
        async with asking() as (ask, keys):
            assert (await ask(target, method=method, json=body)).status_code == 401
            assert (await ask(target, "fl_0123456789ab_" + "x" * 43, method=method, json=body)).status_code == 401
            assert (await ask(target, token(sub="anna"), method=method, json=body)).status_code == 403
            for held in ApiRight:
                _, key, _ = await keys.create("one", [held], None)
                status = (await ask(target, key, method=method, json=body)).status_code
                assert (status == 403) is not may(frozenset((held,)), right), held
                assert status not in (401, 422, 500)


async def test_what_is_done_is_noted_with_who_did_it_and_to_whom(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with asking(audit_log=str(log)) as (ask, keys):
        _, key, _ = await keys.create("support", [ApiRight.ADMIN], None)
        await ask("/info", key)
        await ask("/users/disconnect", key, method="POST", json={"user_id": "anna"})
        await ask("/users/disconnect", method="POST", json={"user_id": "anna"})
    (line,) = log.read_text().splitlines()
    noted = json_module.loads(line)
    assert {name: noted[name] for name in ("event", "caller", "verb", "what", "user_id")} == {
        "event": "managed",
        "caller": "key support",
        "verb": "disconnect_user",
        "what": f"{PREFIX}/users/disconnect",
        "user_id": "anna",
    }
    assert key not in line


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
async def test_a_number_that_json_does_not_have_is_refused_and_never_stored_as_null(number: str) -> None:
    async with asking(AuthMode.OPEN) as (_, __):
        transport = httpx.ASGITransport(app=Forwarded(_app(())))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
            body = f'{{"channel": "a:b", "data": {{"load": {number}}}}}'
            headers = {**FORWARDED, "Content-Type": "application/json"}
            answer = await client.post(f"{PREFIX}/send-to-channel", headers=headers, content=body)
    assert answer.status_code == 422
    assert f"{number} is no number" in answer.json()["message"]


async def test_head_is_answered_like_get() -> None:
    async with asking() as (ask, keys):
        _, key, _ = await keys.create("one", [ApiRight.READ], None)
        answers = [await ask("/info", key, method=method) for method in ("GET", "HEAD")]
        refused = await ask("/broadcast", method="HEAD")
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["content-length"] == answers[1].headers["content-length"]
    assert refused.status_code == 405
