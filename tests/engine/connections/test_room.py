"""A client for which there is no room gets 503 with Retry-After: neither silence nor a closed connection."""

import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect, connect_raw, upgrade_request


def client_of(sock: socket.socket) -> RawClient:
    return RawClient(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


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
