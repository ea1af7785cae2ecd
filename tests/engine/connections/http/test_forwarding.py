"""Plain HTTP is passed on to the control process; whatever happens there costs its own answers and nothing else."""

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from fanline.engine.connections.http import held_bytes
from fanline.engine.settings import EngineSettings
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect, connect_raw
from tests.support.servers.certificates import Certificates

Handler = Callable[[trio.SocketStream, bytes], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


async def read_request(stream: trio.SocketStream) -> bytes:
    """One request, head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < length:
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


@asynccontextmanager
async def control_process(path: str, handler: Handler) -> AsyncIterator[list[bytes]]:
    """Stands in for the control process, of which each connection carries one request; the requests that have come."""
    requests = list[bytes]()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            requests.append(await read_request(stream))
            await handler(stream, requests[-1])

    async with serving(path, serve):
        yield requests


@asynccontextmanager
async def serving(path: str, serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[None]:
    """Inside the block, connections to this path are served."""

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        yield
        nursery.cancel_scope.cancel()


async def answer(stream: trio.SocketStream, _: bytes, data: bytes = OK) -> None:
    await stream.send_all(data)


async def ask(
    engine: RunningEngine, path: str = "/api/x", body: bytes = b"", headers: str = "", method: str = "GET"
) -> tuple[int, bytes]:
    """Status and body of the answer to one request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    async with connect_raw(engine.host, engine.port) as client:
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n".encode() + body)
        status, _, said = await client.read_http()
        return status, said


def message_of(said: bytes) -> str:
    decoded: dict[str, str] = msgspec.json.decode(said)
    return decoded["message"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


@pytest.mark.parametrize("target", ["/api/v1/x?a=b%20c", "/metrics", "/docs", "/console/a/b.js"])
async def test_what_is_for_the_control_process_comes_to_it_and_its_answer_comes_back(path: str, target: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            assert await ask(engine, target, b"12345", method="POST") == (200, b"ok")
            (request,) = requests
            assert request.startswith(f"POST {target} HTTP/1.1\r\nhost: localhost\r\n".encode())
            assert request.endswith(b"\r\n\r\n12345")
            assert b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n" in request
            assert engine.server.statistics().forwarded == 1


@pytest.mark.parametrize("target", ["/api", "/apix/", "/metricsx", "/metrics/", "/ws", "/xapi/x", "//api/x"])
async def test_nothing_else_comes_to_it(path: str, target: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            assert (await ask(engine, target))[0] in (404, 426)
            assert requests == []


async def test_a_body_in_chunks_is_passed_on_with_its_length(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            chunked = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
            async with connect_raw(engine.host, engine.port) as client:
                head = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                for byte in head + chunked:
                    await client.send(bytes([byte]))
                assert (await client.read_http())[0] == 200
            assert requests[0].endswith(b"content-length: 5\r\n\r\nabcde")


async def test_a_second_request_behind_the_first_goes_nowhere(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                one = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await client.send(one + one.replace(b"/x", b"/evil"))
                status, _, body = await client.read_http()
            assert (status, body, len(requests)) == (200, b"ok", 1)


async def test_a_client_that_waits_for_it_may_go_on_with_its_body(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer), running_engine(control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                head = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
                await client.send(head)
                assert await client.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
                await client.send(b"abc")
                assert (await client.read_http())[0] == 200


async def test_an_answer_to_head_has_no_body(path: str) -> None:
    only_head = partial(answer, data=OK.removesuffix(b"ok"))
    with trio.fail_after(10):
        async with control_process(path, only_head), running_engine(control=path) as engine:
            assert await ask(engine, method="HEAD") == (200, b"")


async def test_a_large_answer_comes_whole_over_tls(tmp_path: Path) -> None:
    certificates, path = Certificates(tmp_path), str(tmp_path / "control.sock")
    large = b"x" * 3_000_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(large), large)
    with trio.fail_after(20):
        async with (
            control_process(path, partial(answer, data=data)) as requests,
            running_engine(certificates.settings, control=path) as engine,
            await trio.open_tcp_stream(engine.host, engine.port) as stream,
        ):
            secured = trio.SSLStream(
                stream, certificates.client_context, server_hostname="localhost", https_compatible=True
            )
            await secured.send_all(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while chunk := await secured.receive_some():
                received += chunk
            head, _, body = received.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
            assert body.count(b"x") == len(body) == len(large)
            assert b"x-forwarded-proto: https" in requests[0]


# --- connections that are used again ---------------------------------------------------------------------------------

GOES_ON = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Connections:
    """Stands in for a control process that keeps its connections open: the targets that each one was asked for."""

    def __init__(self) -> None:
        self.asked = list[list[bytes]]()
        self.may_read = trio.Event()
        """Until then a connection that has answered is not read."""
        self.may_read.set()
        self.closed = trio.Event()
        """A connection was closed by this side."""

    async def serve(self, stream: trio.SocketStream, most: int = 1000, answer: bytes = GOES_ON) -> None:
        """`most`: of the requests that a connection is read for."""
        targets = list[bytes]()
        self.asked.append(targets)
        async with stream:
            with suppress(trio.BrokenResourceError):
                while len(targets) < most and (data := await stream.receive_some()):
                    targets.append(data.split()[1])
                    await stream.send_all(answer)
                    await self.may_read.wait()
        self.closed.set()


async def test_requests_one_after_the_other_share_a_connection_and_a_clients_own_ends(path: str) -> None:
    control = Connections()
    with trio.fail_after(10):
        async with serving(path, control.serve), running_engine(control=path) as engine:
            for number in range(3):
                async with connect_raw(engine.host, engine.port) as client:
                    await client.send(f"GET /api/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    received = b"".join([chunk async for chunk in client.stream])
                assert received == b"HTTP/1.1 200 OK\r\nconnection: close\r\nContent-Length: 2\r\n\r\nok"
            assert control.asked == [[b"/api/0", b"/api/1", b"/api/2"]]


async def test_a_request_after_a_longer_one_gets_a_connection_of_its_own(path: str) -> None:
    control = Connections()
    with trio.fail_after(10):
        async with serving(path, control.serve), running_engine(control=path) as engine:
            assert (await ask(engine, "/api/0", b"x" * 20_000, method="POST"))[0] == 200
            assert (await ask(engine, "/api/1"))[0] == 200
            assert [targets[0] for targets in control.asked] == [b"/api/0", b"/api/1"]


async def test_a_connection_that_was_closed_meanwhile_is_not_used_again(path: str) -> None:
    control = Connections()
    with trio.fail_after(10):
        async with serving(path, partial(control.serve, most=1)), running_engine(control=path) as engine:
            for number in range(3):
                assert await ask(engine, f"/api/{number}") == (200, b"ok")
                await control.closed.wait()
                control.closed = trio.Event()
            assert control.asked == [[b"/api/0"], [b"/api/1"], [b"/api/2"]]


async def test_a_request_that_nobody_has_read_is_sent_again_on_a_new_connection(path: str) -> None:
    control = Connections()
    control.may_read = trio.Event()
    with trio.fail_after(10):
        async with (
            serving(path, partial(control.serve, most=1)),
            running_engine(control=path) as engine,
            trio.open_nursery() as nursery,
        ):
            assert (await ask(engine, "/api/0"))[0] == 200
            statuses = list[int]()

            async def ask_more() -> None:
                statuses.append((await ask(engine, "/api/1", method="POST"))[0])

            nursery.start_soon(ask_more)
            while engine.server.statistics().forwarded < 2:
                await trio.sleep(0.01)
            control.may_read.set()  # the first connection closes, with the second request unread
            while not statuses:
                await trio.sleep(0.01)
            assert (statuses, control.asked) == ([200], [[b"/api/0"], [b"/api/1"]])


async def test_a_request_that_was_read_is_not_sent_again(path: str) -> None:
    read = list[bytes]()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            read.append(await stream.receive_some())
            await stream.send_all(GOES_ON)
            read.append(await stream.receive_some())

    with trio.fail_after(10):
        async with serving(path, serve), running_engine(control=path) as engine:
            assert (await ask(engine, method="POST"))[0] == 200
            status, said = await ask(engine, method="POST")
            assert (status, "it may have done what was asked" in message_of(said)) == (503, True)
            assert len(read) == 2


@pytest.mark.parametrize("said", [OK, GOES_ON + b"HTTP/1.1 200 OK"])
async def test_a_connection_that_ends_or_says_more_than_an_answer_is_not_used_again(path: str, said: bytes) -> None:
    control = Connections()
    with trio.fail_after(10):
        async with serving(path, partial(control.serve, answer=said)), running_engine(control=path) as engine:
            for _ in range(2):
                assert (await ask(engine))[0] == 200
            assert len(control.asked) == 2


async def test_an_answer_that_comes_too_late_goes_to_nobody_else(path: str) -> None:
    control, settings = Connections(), EngineSettings(forward_timeout=0.3)

    async def serve(stream: trio.SocketStream) -> None:
        if control.asked:
            await control.serve(stream)
        else:
            await control.serve(stream, answer=b"")

    with trio.fail_after(10):
        async with serving(path, serve), running_engine(settings, control=path) as engine:
            assert (await ask(engine, "/api/late"))[0] == 503
            assert await ask(engine, "/api/next") == (200, b"ok")
            assert control.asked == [[b"/api/late"], [b"/api/next"]]


# --- what can go wrong -----------------------------------------------------------------------------------------------


async def test_without_a_control_process_there_is_an_answer_and_clients_notice_nothing(path: str) -> None:
    with trio.fail_after(10):
        async with running_engine(control=path) as engine, connect(engine.host, engine.port) as client:
            status, said = await ask(engine)
            assert (status, message_of(said)) == (503, "the control process is not there; it is about to be started")
            assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"


async def test_a_server_without_one_says_so() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine:
            status, said = await ask(engine)
            assert (status, "`control` is false" in message_of(said)) == (404, True)


async def test_one_that_hangs_is_given_up(path: str) -> None:
    async def hang(stream: trio.SocketStream, _: bytes) -> None:
        await stream.receive_some()

    with trio.fail_after(10):
        async with (
            control_process(path, hang),
            running_engine(EngineSettings(forward_timeout=0.3), control=path) as engine,
            connect(engine.host, engine.port) as client,
        ):
            status, said = await ask(engine)
            assert (status, message_of(said)) == (503, "the control process has not answered for 0.3 s")
            assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"


@pytest.mark.parametrize("size", [0, 1, 40, len(OK) - 1])
async def test_an_answer_without_its_end_is_no_answer(path: str, size: int) -> None:
    with trio.fail_after(10):
        async with control_process(path, partial(answer, data=OK[:size])), running_engine(control=path) as engine:
            status, said = await ask(engine)
            assert status == 503
            assert "ended while it answered" in message_of(said)


async def test_an_answer_that_is_none_is_not_passed_on(path: str) -> None:
    with trio.fail_after(10):
        async with (
            control_process(path, partial(answer, data=b"SSH-2.0\r\n\r\n")),
            running_engine(control=path) as engine,
        ):
            assert (await ask(engine))[0] == 503


async def test_too_many_at_a_time_are_told_to_come_back(path: str) -> None:
    may_answer, waiting = trio.Event(), trio.Event()
    under_way = 0

    async def wait(stream: trio.SocketStream, _: bytes) -> None:
        nonlocal under_way
        under_way += 1
        if under_way == 3:
            waiting.set()
        await may_answer.wait()
        await stream.send_all(OK)

    with trio.fail_after(20):
        async with (
            control_process(path, wait) as requests,
            running_engine(EngineSettings(forwarded_requests=3), control=path) as engine,
            trio.open_nursery() as nursery,
        ):
            statuses = list[int]()

            async def ask_one() -> None:
                statuses.append((await ask(engine))[0])

            for _ in range(3):
                nursery.start_soon(ask_one)
            await waiting.wait()
            assert (await ask(engine))[0] == 503
            assert (len(requests), engine.server.statistics().forwards_refused) == (3, 1)
            may_answer.set()
            while len(statuses) < 3:
                await trio.sleep(0.01)
            assert statuses == [200] * 3
            assert (await ask(engine))[0] == 200  # the places were given back


async def test_a_body_over_the_limit_is_refused_before_it_is_sent_and_after(path: str) -> None:
    with trio.fail_after(20):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            assert (await ask(engine, headers="Content-Length: 1048577\r\n", method="POST"))[0] == 413
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
                chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
                for _ in range(17):
                    await client.send(chunk)
                assert (await client.read_http())[0] == 413
            assert requests == []


@pytest.mark.parametrize("broken", [b"xyz\r\n", b"f" * 20 + b"\r\n", b"3\r\nabcdef"], ids=["no-size", "huge", "longer"])
async def test_a_body_that_is_broken_is_refused_at_once_also_if_it_comes_with_the_head(
    broken: bytes, path: str
) -> None:
    with trio.fail_after(8):  # a request has ten seconds
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                head = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                await client.send(head + broken)
                assert (await client.read_http())[0] == 400
            assert requests == []


@pytest.mark.parametrize("begun", [b"1;a=", b"1\r\nx\r\n0\r\nX: "], ids=["extension", "trailer"])
async def test_what_stands_around_a_body_is_bounded(begun: bytes, path: str) -> None:
    with trio.fail_after(20):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client, trio.open_nursery() as nursery:
                head = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                await client.send(head + begun)

                async def go_on() -> None:
                    with suppress(trio.BrokenResourceError):
                        while True:
                            await client.send(b"y" * 0x10000)

                nursery.start_soon(go_on)
                status, _, _ = await client.read_http()
                nursery.cancel_scope.cancel()
            assert (status, requests) == (413, [])


async def test_what_is_held_is_bounded_and_given_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bytes, "MAX_HELD_BYTES", 1000)
    with trio.fail_after(10):
        async with control_process(path, answer), running_engine(control=path) as engine:
            for _ in range(3):
                assert (await ask(engine, body=b"x" * 2000, method="POST"))[0] == 503
                assert (await ask(engine, body=b"x" * 400, method="POST"))[0] == 200


HALF = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n" + b"x" * 800


@asynccontextmanager
async def half_sent(engine: RunningEngine) -> AsyncIterator[RawClient]:
    """A client of which the server holds half a request."""
    async with connect_raw(engine.host, engine.port) as slow:
        await slow.send(HALF)
        while engine.server._handshakes._entrance._forwarding._held._total < 800:
            await trio.sleep(0.01)
        yield slow


async def test_clients_that_send_slowly_make_room_for_others(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bytes, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(held_bytes, "PATIENCE_SECONDS", 0.0)
    with trio.fail_after(10):
        async with control_process(path, answer), running_engine(control=path) as engine:
            async with half_sent(engine) as slow:
                assert (await ask(engine, body=b"x" * 400, method="POST"))[0] == 200
                assert (await slow.read_http())[0] == 408


async def test_clients_that_read_slowly_make_room_for_others(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"x" * 9_000_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(large), large)
    monkeypatch.setattr(held_bytes, "MAX_HELD_BYTES", 10_000_000)
    monkeypatch.setattr(held_bytes, "PATIENCE_SECONDS", 0.0)
    with trio.fail_after(20):
        async with (
            control_process(path, partial(answer, data=data)),
            running_engine(control=path, send_buffer=4096) as engine,
            connect_raw(engine.host, engine.port) as slow,
        ):
            await slow.send(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await slow.stream.receive_some(15)) == b"HTTP/1.1 200 OK"
            status, body = await ask(engine)
            assert (status, len(body)) == (200, len(large))


async def test_clients_have_a_moment_before_they_make_room(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_bytes, "MAX_HELD_BYTES", 1000)
    monkeypatch.setattr(held_bytes, "PATIENCE_SECONDS", 1000.0)
    with trio.fail_after(10):
        async with control_process(path, answer), running_engine(control=path) as engine:
            async with half_sent(engine) as slow:
                assert (await ask(engine, body=b"x" * 400, method="POST"))[0] == 503
                await slow.send(b"x" * 100)
                assert (await slow.read_http())[0] == 200


async def test_a_client_that_does_not_send_its_body_is_given_up_and_holds_no_place(path: str) -> None:
    settings = EngineSettings(forwarded_requests=1, handshake_timeout=2)
    with trio.fail_after(10):
        async with control_process(path, answer), running_engine(settings, control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab")
                assert (await ask(engine))[0] == 200
                assert (await client.read_http())[0] == 408


async def test_a_client_that_does_not_read_its_answer_holds_no_place(path: str) -> None:
    large = b"x" * 12_000_000
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(large), large)
    settings = EngineSettings(forwarded_requests=1, forward_timeout=4)
    with trio.fail_after(20):
        async with (
            control_process(path, partial(answer, data=data)) as requests,
            running_engine(settings, control=path, send_buffer=4096) as engine,
        ):
            async with AsyncExitStack() as stack:
                for number in range(3):
                    client = await stack.enter_async_context(connect_raw(engine.host, engine.port))
                    await client.send(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    while engine.server.statistics().forwarded <= number:
                        await trio.sleep(0.01)
                    assert (await client.stream.receive_some(15)) == b"HTTP/1.1 200 OK"
                assert len(requests) == 3
            while engine.server._sockets:
                await trio.sleep(0.01)


async def test_a_thousand_connections_that_say_nothing_hurt_nobody(path: str) -> None:
    with trio.fail_after(60):
        async with (
            control_process(path, answer),
            running_engine(EngineSettings(max_handshakes=256), control=path) as engine,
            connect(engine.host, engine.port) as client,
        ):
            silent = list[socket.socket]()
            try:
                for number in range(1000):
                    sock = socket.socket()
                    sock.setblocking(False)
                    assert sock.connect_ex((engine.host, engine.port)) in (0, errno.EINPROGRESS)
                    silent.append(sock)
                    if number % 50 == 0:
                        assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
                assert (await ask(engine))[0] == 200  # those who say nothing for longest make room
                assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            finally:
                for sock in silent:
                    sock.close()


# --- who may come ----------------------------------------------------------------------------------------------------


async def test_a_page_of_another_origin_is_refused_here(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            assert (await ask(engine, headers="Origin: https://evil.example\r\n", method="POST"))[0] == 403
            assert requests == []


async def test_a_name_that_is_not_the_servers_is_refused_here(path: str) -> None:
    with trio.fail_after(10):
        async with control_process(path, answer) as requests, running_engine(control=path) as engine:
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(b"GET /api/x HTTP/1.1\r\nHost: rebound.example\r\n\r\n")
                assert (await client.read_http())[0] == 403
            assert requests == []


async def test_an_address_that_may_not_connect_may_not_ask(path: str) -> None:
    with trio.fail_after(10):
        async with (
            control_process(path, answer) as requests,
            running_engine(EngineSettings(deny_addresses=("127.0.0.0/8",)), control=path) as engine,
        ):
            assert (await ask(engine))[0] == 403
            assert requests == []


async def test_a_trusted_proxy_says_for_whom_it_asks_and_how_that_client_came(path: str) -> None:
    said = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
    with trio.fail_after(10):
        async with control_process(path, answer) as requests:
            for number, trusted in enumerate(((), ("127.0.0.1",))):
                async with running_engine(EngineSettings(trusted_proxies=trusted), control=path) as engine:
                    assert (await ask(engine, headers=said))[0] == 200
                found = b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\n" in requests[number]
                assert found is bool(trusted)


async def test_a_socket_in_a_deep_directory_is_reached(tmp_path: Path) -> None:
    directory = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 6)
    directory.mkdir(parents=True)
    deep = str(directory / "control.sock")
    assert len(deep) > 108
    with trio.fail_after(10):
        async with control_process(str(tmp_path / "c"), answer), running_engine(control=deep) as engine:
            assert (await ask(engine))[0] == 503
            Path(deep).symlink_to(tmp_path / "c")
            assert (await ask(engine))[0] == 200
