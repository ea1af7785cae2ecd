"""The loop that carries a producer's connection, on a thread, against scripted servers."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from fanline.errors import FanlineError
from fanline.nats.loop import NatsLoop
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsMessage
from fanline.protocol.nats.replies import Complaint
from tests.fanline.nats.scripted import INFO, ScriptedServer, listening
from tests.support.servers.serve import wait_until

pytestmark = pytest.mark.process


class Recorder:
    """A user of a loop that only takes note."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.complaints: list[Complaint] = []

    def connected(self, now: float) -> None:
        self.events.append("connected")

    def lost(self, why: str | None, now: float) -> None:
        self.events.append(f"lost: {why}")

    def denied(self, complaint: Complaint) -> None:
        self.complaints.append(complaint)

    def step(self, now: float) -> float:
        return math.inf


@contextmanager
def _running(loop: NatsLoop) -> Iterator[Recorder]:
    user = Recorder()
    thread = threading.Thread(target=loop.run, args=(user,))
    thread.start()
    try:
        yield user
    finally:
        loop.call_soon(loop.stop)
        thread.join(5)
        assert not thread.is_alive()


def _loop(*urls: str) -> NatsLoop:
    return NatsLoop(lambda: NatsOptions(urls))


async def test_subscriptions_are_made_again_on_the_next_connection_and_go_on_hearing() -> None:
    heard, connections = list[NatsMessage](), list[bytes]()

    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        connections.append(await server.read_until(b"SUB news 2\r\n"))
        await server.send(b"MSG news 2 5\r\nhello\r\n")

    async with listening(serve) as url:
        loop = _loop(url)
        loop.requests.subscribe("news", heard.append)
        with _running(loop) as user:
            await wait_until(lambda: len(heard) >= 2)
        assert user.events[:3] == ["connected", "lost: the NATS server closed the connection", "connected"]
        assert connections[0].startswith(b"SUB _INBOX.")


async def test_a_server_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.nats.loop.TICK_SECONDS", 0.02)
    asked = list[bytes]()

    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        asked.append(await server.read_until(b"PING\r\n"))
        await trio.sleep_forever()

    async with listening(serve) as url:
        with _running(_loop(url)) as user:
            await wait_until(lambda: len(user.events) >= 2)
        assert user.events[1].startswith("lost: the server was silent for")
    assert asked


async def test_a_server_that_answers_pings_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.nats.loop.TICK_SECONDS", 0.05)
    pings = 0

    async def serve(server: ScriptedServer) -> None:
        nonlocal pings
        await server.log_in()
        while True:
            await server.read_until(b"PING\r\n")
            await server.send(b"PONG\r\n")
            pings += 1

    async with listening(serve) as url:
        with _running(_loop(url)) as user:
            await wait_until(lambda: pings >= 10)
            assert user.events == ["connected"]


async def test_the_only_server_is_kept_until_it_stops_but_another_one_is_taken_at_once() -> None:
    told = trio.Event()

    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await told.wait()
        await server.send(INFO.replace(b"{", b'{"ldm":true,'))
        await server.read_until(b"never")

    async def serve_other(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"never")

    async with listening(serve) as url, listening(serve_other) as other:
        with _running(_loop(url)) as alone, _running(_loop(url, other)) as one_of_two:
            await wait_until(lambda: bool(alone.events and one_of_two.events))
            told.set()
            await wait_until(lambda: len(one_of_two.events) >= 3)
            assert one_of_two.events == ["connected", "lost: None", "connected"]
            assert alone.events == ["connected"]


async def test_where_nats_is_is_looked_up_for_each_connection() -> None:
    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"never")

    def find() -> NatsOptions:
        if not found:
            raise FanlineError("nobody knows where NATS is")
        return NatsOptions((found[-1],))

    found = list[str]()
    async with listening(serve) as url:
        with _running(NatsLoop(find)) as user:
            await wait_until(lambda: len(user.events) >= 2)
            found.append("nats://127.0.0.1:1")
            await wait_until(lambda: "refused" in user.events[-1])
            found.append(url)
            await wait_until(lambda: user.events[-1] == "connected")
        assert user.events[0] == "lost: nobody knows where NATS is"
        assert user.events[-2] == "lost: cannot connect to nats://127.0.0.1:1: Connection refused"


async def test_what_the_server_denies_is_reported() -> None:
    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"SUB ")
        await server.send(b"-ERR 'Permissions Violation for Subscription to \"secret\"'\r\n")
        await server.read_until(b"never")

    async with listening(serve) as url:
        with _running(_loop(url)) as user:
            await wait_until(lambda: bool(user.complaints))
        assert user.complaints[0].subject == "secret"
        assert user.events == ["connected"]


async def test_much_is_written_to_a_server_that_reads_slowly() -> None:
    size, read = 8 << 20, list[int]()

    async def serve(server: ScriptedServer) -> None:
        await server.log_in()
        await server.read_until(b"SUB ")
        read.append(len(await server.read_until(b"END\r\n")))

    async with listening(serve) as url:
        loop = _loop(url)
        with _running(loop) as user:
            await wait_until(lambda: bool(user.events))
            loop.call_soon(loop.requests.publish, "x", b"x" * size)
            loop.call_soon(loop.requests.publish, "x", b"END")
            await wait_until(lambda: bool(read))
    assert read[0] > size


def test_a_call_after_the_end_does_nothing() -> None:
    loop = _loop("nats://127.0.0.1:1")
    loop.stop()
    loop.run(Recorder())
    loop.call_soon(pytest.fail)
