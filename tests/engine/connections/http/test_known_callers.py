"""Requests of plain HTTP whose caller the control process knows are not counted as handshakes of their address."""

from functools import partial
from pathlib import Path

import pytest
import trio

from fanline.engine.settings import EngineSettings
from tests.engine.connections.http.test_forwarding import answer, ask, control_process
from tests.engine.running import running_engine
from tests.support.raw_client import connect_raw

KNOWN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nfanline-caller: known\r\nconnection: close\r\n\r\nok"
UNKNOWN = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno"
REMOTE = "X-Forwarded-For: 203.0.113.1\r\n"
BURST = EngineSettings(handshakes_per_address=1.0, trusted_proxies=("127.0.0.1",))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


async def statuses(path: str, said: bytes, count: int) -> list[int]:
    async with control_process(path, partial(answer, data=said)), running_engine(BURST, control=path) as engine:
        return [(await ask(engine, headers=REMOTE))[0] for _ in range(count)]


async def test_a_backend_with_a_key_may_call_as_often_as_it_likes(path: str) -> None:
    with trio.fail_after(30):
        assert set(await statuses(path, KNOWN, 40)) == {200}


async def test_calls_without_a_key_that_is_accepted_are_as_many_as_handshakes(path: str) -> None:
    with trio.fail_after(30):
        answered = await statuses(path, UNKNOWN, 40)
    assert answered[:5] == [401] * 5
    assert answered.count(429) > 20


async def test_the_client_is_not_told_what_the_control_process_tells_the_worker(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, partial(answer, data=KNOWN)), running_engine(control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                _, headers, body = await client.read_http()
    assert (set(headers), body) == ({"content-length", "connection"}, b"ok")


async def test_a_request_that_does_not_end_counts(path: str) -> None:
    settings = EngineSettings(handshakes_per_address=0.2, trusted_proxies=("127.0.0.1",), handshake_timeout=0.2)
    with trio.fail_after(20):
        async with control_process(path, partial(answer, data=KNOWN)), running_engine(settings, control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(
                    f"GET /api/x HTTP/1.1\r\nHost: localhost\r\n{REMOTE}Content-Length: 5\r\n\r\n".encode()
                )
                assert (await client.read_http())[0] == 408
            assert (await ask(engine, headers=REMOTE))[0] == 429
