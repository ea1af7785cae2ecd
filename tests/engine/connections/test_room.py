"""A client for which there is no room gets 503 with Retry-After: neither silence nor a closed connection."""

import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import cast

import pytest
import trio

from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect, connect_raw, upgrade_request
from tests.support.servers.certificates import Certificates


def client_of(sock: socket.socket) -> RawClient:
    return RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


async def asking_over_tls(stream: trio.SocketStream, certificates: Certificates) -> RawClient:
    """A client that has asked for a WebSocket over TLS."""
    secured = trio.SSLStream(stream, certificates.client_context, server_hostname="localhost", https_compatible=True)
    client = RawClient(cast("trio.SocketStream", secured))
    await client.send(upgrade_request())
    return client


async def assert_turned_away(client: RawClient) -> None:
    status, headers, body = await client.read_http()
    assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
    assert body == b'{"error":"unavailable","message":"this worker is full"}'


async def test_at_the_limit_of_sockets_a_client_is_told_when_to_come_back() -> None:
    with trio.fail_after(10):
        async with running_engine() as engine, connect(engine.host, engine.port) as served:
            engine.server._max_sockets = 1
            async with connect_raw(engine.host, engine.port) as client:
                await client.send(upgrade_request())
                await assert_turned_away(client)
            assert (await served.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            assert engine.server.statistics().refused == 1
            engine.server._max_sockets = 2
            async with connect(engine.host, engine.port):
                pass


async def test_a_crowd_that_says_nothing_is_told_as_well_and_holds_no_sockets() -> None:
    with trio.fail_after(20):
        async with running_engine() as engine, connect(engine.host, engine.port):
            engine.server._max_sockets = 1
            sockets = [socket.create_connection((engine.host, engine.port)) for _ in range(100)]
            for sock in sockets:
                client = client_of(sock)
                async with client.stream:
                    await assert_turned_away(client)
            await _nobody_is_turned_away(engine)
            assert engine.server._sockets == 1


async def test_at_the_limit_of_sockets_a_tls_client_is_told_as_well(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with trio.fail_after(10):
        async with running_engine(certificates.settings) as engine:
            engine.server._max_sockets = 0
            for _ in range(3):
                async with await trio.open_tcp_stream(engine.host, engine.port) as stream:
                    await assert_turned_away(await asking_over_tls(stream, certificates))
            await _nobody_is_turned_away(engine)
            assert engine.server.statistics().refused == 3


async def test_only_few_tls_clients_at_a_time_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each costs a TLS handshake, and may take its time for it: those beyond are cut off.
    monkeypatch.setattr("fanline.engine.connections.handshake._TURNED_AWAY", 2)
    monkeypatch.setattr("fanline.engine.connections.handshake._TURNED_AWAY_TLS_SECONDS", 0.5)
    certificates = Certificates(tmp_path)
    with trio.fail_after(10):
        async with running_engine(certificates.settings) as engine, AsyncExitStack() as streams:
            engine.server._max_sockets = 0
            silent = [
                await streams.enter_async_context(await trio.open_tcp_stream(engine.host, engine.port))
                for _ in range(4)
            ]
            begun = trio.current_time()
            assert [await stream.receive_some(1) for stream in silent[2:]] == [b"", b""]
            assert trio.current_time() - begun < 0.4
            assert engine.server._handshakes._turned_away == 2
            await _nobody_is_turned_away(engine)
            async with await trio.open_tcp_stream(engine.host, engine.port) as stream:
                await assert_turned_away(await asking_over_tls(stream, certificates))


async def test_without_a_file_for_its_socket_a_tls_client_is_told_as_well(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with trio.fail_after(20):
        async with running_engine(certificates.settings) as engine:
            clients = [socket.socket() for _ in range(3)]
            with _no_files():
                for sock in clients:
                    sock.connect((engine.host, engine.port))
                    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                    await assert_turned_away(await asking_over_tls(stream, certificates))
            for sock in clients:
                sock.close()


async def test_a_tls_client_without_a_file_that_says_nothing_holds_up_the_next_one_only_for_a_moment(
    tmp_path: Path,
) -> None:
    certificates = Certificates(tmp_path)
    with trio.fail_after(20):
        async with running_engine(certificates.settings) as engine:
            clients = [socket.socket() for _ in range(2)]
            with _no_files():
                silent, asking = clients
                silent.connect((engine.host, engine.port))
                asking.connect((engine.host, engine.port))
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(asking))
                await assert_turned_away(await asking_over_tls(stream, certificates))
                assert silent.recv(1) == b""
            for sock in clients:
                sock.close()


async def test_without_a_file_for_its_socket_a_client_is_told_when_to_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(20):
        async with running_engine() as engine, connect(engine.host, engine.port) as served:
            clients = [socket.socket() for _ in range(3)]
            with _no_files():
                for sock in clients:  # none is closed meanwhile: that would make room
                    sock.connect((engine.host, engine.port))
                    client = client_of(sock)
                    await client.send(upgrade_request())
                    await assert_turned_away(client)
                    assert (await served.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            for sock in clients:
                sock.close()
            async with connect(engine.host, engine.port):
                pass  # there is room again
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "cannot accept: Too many open files; clients are turned away"


async def test_a_crowd_without_files_is_told_at_once_though_nobody_of_it_leaves() -> None:
    with trio.fail_after(30):
        async with running_engine() as engine, connect(engine.host, engine.port) as served:
            clients = [socket.socket() for _ in range(100)]
            with _no_files():
                for sock in clients:
                    sock.connect((engine.host, engine.port))
                    sock.send(upgrade_request())
                begun = trio.current_time()
                for sock in clients:
                    await assert_turned_away(client_of(sock))
                assert trio.current_time() - begun < 2
                assert (await served.ask({"t": "ping", "i": "1"}))["t"] == "pong"
            for sock in clients:
                sock.close()
            async with connect(engine.host, engine.port):
                pass  # there is room again


@contextmanager
def _no_files() -> Iterator[None]:
    """Inside the block this process can open no file."""
    filled: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_first_free_file(filled), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filled:
            os.close(fd)


def _first_free_file(filled: list[int]) -> int:
    """With this limit no further file can be opened: all below are in use. `filled` gets those that fill the gaps."""
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    while (fd := os.open(os.devnull, os.O_RDONLY)) <= highest:
        filled.append(fd)
    os.close(fd)
    return fd


async def _nobody_is_turned_away(engine: RunningEngine) -> None:
    while engine.server._handshakes._turned_away:
        await trio.sleep(0.01)
