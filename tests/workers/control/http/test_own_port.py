"""`control_port`, on real sockets: what a client may do there is bounded in time, number and size, as at a worker."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from fanline.engine.access.audit import Audit
from fanline.engine.settings import EngineSettings
from fanline.workers.control.http.own_port import OwnPort
from tests.engine.connections.http.test_forwarding import OK, answer, control_process
from tests.support.raw_client import connect_raw
from tests.support.servers.certificates import Certificates

HOST = "127.0.0.1"
HEAD = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\n"
PATIENT = 60.0


@asynccontextmanager
async def own_port(path: str, settings: EngineSettings | None = None) -> AsyncIterator[int]:
    """The port's number."""
    with socket.create_server((HOST, 0)) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(OwnPort(settings or EngineSettings(), path, Audit("", "control", None)).serve, listener)
            yield listener.getsockname()[1]
            nursery.cancel_scope.cancel()


async def status_of(port: int, data: bytes = HEAD + b"\r\n") -> int:
    """How a request is answered."""
    async with connect_raw(HOST, port) as client:
        await client.send(data)
        return (await client.read_http())[0]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


async def test_a_request_is_passed_on_with_its_body_and_its_client(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, own_port(path) as port:
            assert (
                await status_of(port, HEAD + b"Content-Length: 5\r\nX-Forwarded-For: 203.0.113.1\r\n\r\nhello") == 200
            )
        assert b"x-forwarded-for: 127.0.0.1\r\n" in requests[0]
        assert requests[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "begun", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\nhalf", HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab"]
)
async def test_half_a_request_is_given_up_in_time(path: str, begun: bytes) -> None:
    with trio.fail_after(20):
        async with (
            control_process(path, answer) as requests,
            own_port(path, EngineSettings(handshake_timeout=0.3)) as port,
        ):
            assert await status_of(port, begun) == 408
        assert requests == []


async def test_a_request_that_comes_byte_by_byte_has_no_more_time_than_another(path: str) -> None:
    async def drip(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(b"x")
            await trio.sleep(0.05)

    with trio.fail_after(20):
        async with (
            control_process(path, answer),
            own_port(path, EngineSettings(handshake_timeout=0.5)) as port,
            connect_raw(HOST, port) as client,
            trio.open_nursery() as nursery,
        ):
            await client.send(HEAD + b"X-Slow: ")
            nursery.start_soon(drip, client.stream)
            head = await client.read_head()
            assert head.startswith(b"HTTP/1.1 408 ")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (HEAD + b"Content-Length: 1048577\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n", 413),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /api/x HTTP/1.1\r\n\r\n", 400),
        (b"POST /other HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /api/x HTTP/1.1\r\nHost: rebound.example\r\n\r\n", 403),
        (HEAD + b"Origin: https://evil.example\r\n\r\n", 403),
    ],
)
async def test_what_a_worker_would_refuse_is_refused_here(path: str, data: bytes, status: int) -> None:
    with trio.fail_after(20):
        async with (
            control_process(path, answer) as requests,
            own_port(path, EngineSettings(handshake_timeout=PATIENT)) as port,
        ):
            assert await status_of(port, data) == status
        assert requests == []


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\nhalf"])
async def test_a_thousand_that_say_nothing_keep_nobody_out(path: str, begun: bytes) -> None:
    with trio.fail_after(120), ExitStack() as stack:
        async with (
            control_process(path, answer),
            own_port(path, EngineSettings(max_handshakes=128, handshake_timeout=PATIENT)) as port,
        ):
            for _ in range(1000):
                silent = stack.enter_context(socket.socket())
                silent.setblocking(False)
                await trio.socket.from_stdlib_socket(silent).connect((HOST, port))
                silent.send(begun)
            assert await status_of(port) == 200


async def test_requests_under_way_are_bounded(path: str) -> None:
    go_on = trio.Event()

    async def wait(stream: trio.SocketStream, _: bytes) -> None:
        await go_on.wait()
        await stream.send_all(OK)

    with trio.fail_after(20):
        async with (
            control_process(path, wait) as requests,
            own_port(path, EngineSettings(forwarded_requests=2)) as port,
            trio.open_nursery() as nursery,
        ):
            for _ in range(2):
                nursery.start_soon(status_of, port)
            while len(requests) < 2:
                await trio.sleep(0.01)
            assert await status_of(port) == 503
            go_on.set()
        assert len(requests) == 2


async def test_an_address_that_may_not_connect_may_not_ask(path: str) -> None:
    with trio.fail_after(10):
        async with (
            control_process(path, answer) as requests,
            own_port(path, EngineSettings(deny_addresses=("127.0.0.0/8",))) as port,
        ):
            assert await status_of(port) == 403
        assert requests == []


async def test_it_has_the_tls_of_the_workers(path: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with trio.fail_after(20):
        async with (
            control_process(path, partial(answer, data=OK)) as requests,
            own_port(path, certificates.settings) as port,
            httpx.AsyncClient(verify=certificates.client_context, timeout=10) as client,
        ):
            assert (await client.get(f"https://localhost:{port}/api/x")).text == "ok"
        assert b"x-forwarded-proto: https" in requests[0]


async def test_a_client_that_begins_no_tls_is_given_up_in_time(path: str, tmp_path: Path) -> None:
    tls = Certificates(tmp_path).settings
    settings = EngineSettings(ssl_certfile=tls.ssl_certfile, ssl_keyfile=tls.ssl_keyfile, handshake_timeout=0.3)
    with trio.fail_after(20):
        async with own_port(path, settings) as port, connect_raw(HOST, port) as client:
            assert await client.stream.receive_some(1) == b""
