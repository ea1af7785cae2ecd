"""Every HTTP answer tells browsers to do nothing with it, and says nothing about the server."""

import pytest
import trio

from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.handshake import SECURITY_HEADERS
from tests.engine.access.clients import token_access
from tests.engine.running import running_engine
from tests.support.raw_client import connect_raw, upgrade_request

ANSWERS = {
    "health": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    "readiness, head": (b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    "no upgrade": (b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
    "no HTTP": (b"hello\r\n\r\n", 400),
    "no token": (upgrade_request(subprotocol=None), 401),
    "a foreign page": (upgrade_request(Origin="https://evil.example"), 403),
    "no route": (upgrade_request("/nothing"), 404),
    "a post": (upgrade_request().replace(b"GET", b"POST", 1), 405),
    "a huge head": (upgrade_request(X="x" * 20_000), 431),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_every_answer_has_the_security_headers(case: str) -> None:
    request, status = ANSWERS[case]
    with trio.fail_after(10):
        async with running_engine(access=token_access()) as engine, connect_raw(engine.host, engine.port) as client:
            await client.send(request)
            found, headers, _ = await client.read_http()
    assert found == status
    assert {name.lower(): value for name, value in SECURITY_HEADERS}.items() <= headers.items()
    assert not headers.keys() & {"server", "x-powered-by", "access-control-allow-origin"}


async def test_a_client_for_which_there_is_no_room_gets_them_as_well() -> None:
    with trio.fail_after(10):
        async with running_engine(EngineSettings(max_connections=1)) as engine:
            async with connect_raw(engine.host, engine.port) as first, connect_raw(engine.host, engine.port) as second:
                await first.upgrade()
                await second.send(upgrade_request())
                status, headers, _ = await second.read_http()
    assert (status, headers["x-content-type-options"]) == (503, "nosniff")
