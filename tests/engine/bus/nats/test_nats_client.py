"""The NATS client of the bus, against servers that follow a script: what no real server does at will."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.client import client as client_module
from fanline.engine.bus.nats.client import wire as wire_module
from fanline.engine.bus.nats.client.client import NatsClient
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import Parser
from fanline.protocol.nats.replies import ComplaintKind, ServerInfo

PUBLISH = ComplaintKind.PUBLISH_DENIED
INFO = b'INFO {"version":"2.12.0","max_payload":1024,"headers":true}\r\n'


class ScriptedConnection:
    """One client's connection, as the script sees it."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def expect(self, text: bytes) -> bytes:
        """Receive until the client has sent this; what came before it."""
        while text not in self._received:
            data = await self._stream.receive_some()
            assert data, f"the client left without {text!r}"
            self._received += data
        before, _, self._received = self._received.partition(text)
        return before

    async def greet(self) -> None:
        await self.send(INFO)
        await self.expect(b"PING\r\n")
        await self.send(b"PONG\r\n")

    async def skip(self) -> None:
        """Receive something, whatever it is."""
        assert await self._stream.receive_some()

    async def hang_up(self) -> None:
        await self._stream.aclose()

    async def until_left(self) -> None:
        while await self._stream.receive_some():
            pass


class ScriptedServer:
    """Accepts connections, and leaves them to the test."""

    def __init__(self, port: int, accepted: "trio.MemoryReceiveChannel[ScriptedConnection]") -> None:
        self.url = f"nats://127.0.0.1:{port}"
        self._accepted = accepted

    async def accept(self) -> ScriptedConnection:
        return await self._accepted.receive()

    async def greet(self) -> ScriptedConnection:
        connection = await self.accept()
        await connection.greet()
        return connection


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    put, get = trio.open_memory_channel[ScriptedConnection](10)

    async def handle(stream: trio.SocketStream) -> None:
        put.send_nowait(ScriptedConnection(stream))
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield ScriptedServer(listener.socket.getsockname()[1], get)
        nursery.cancel_scope.cancel()


class Owner:
    """Of a client: what it was told, in order."""

    def __init__(self, *servers: ScriptedServer) -> None:
        urls = tuple(server.url for server in servers) or ("nats://nowhere",)
        self.told = list[str]()
        self.client = NatsClient(
            NatsOptions(urls),
            "test",
            on_open=lambda: self.told.append("open"),
            on_lost=lambda: self.told.append("lost"),
            on_complaint=lambda complaint: self.told.append(complaint.text),
        )

    @asynccontextmanager
    async def running(self, server: ScriptedServer) -> AsyncIterator[ScriptedConnection]:
        """In the block, the client is connected to a server."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.client.connect)
            connection = await server.greet()
            while not self.client.connected:
                await trio.sleep(0.001)
            nursery.start_soon(self.client.run)
            yield connection
            nursery.cancel_scope.cancel()


async def test_a_server_that_falls_silent_is_left_for_the_next_with_all_subscriptions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "TICK_SECONDS", 0.01)
    with trio.fail_after(10):
        async with scripted_server() as first, scripted_server() as second:
            owner = Owner(first, second)
            owner.client.subscribe("news.a", lambda _: None)
            async with owner.running(first) as connection:
                await connection.expect(b"PING\r\n")  # asked whether it lives, and no answer
                successor = await second.greet()
                await successor.expect(b"SUB news.a 1\r\n")
                assert owner.told == ["lost", "open"]


@pytest.mark.parametrize(
    "last_words",
    [
        pytest.param(b"-ERR 'Stale Connection'\r\n", id="an error that ends the connection"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="something that is not NATS"),
        pytest.param(b"MSG news.a 1 x\r\n", id="a message without a size"),
        pytest.param(b'INFO {"ldm":true,"connect_urls":[]}\r\n', id="lame duck mode"),
    ],
)
async def test_a_server_that_ends_or_breaks_the_conversation_is_left_for_the_next(last_words: bytes) -> None:
    with trio.fail_after(10):
        async with scripted_server() as first, scripted_server() as second:
            owner = Owner(first, second)
            async with owner.running(first) as connection:
                await connection.send(last_words)
                await connection.until_left()
                await second.greet()
                while owner.told != ["lost", "open"]:
                    await trio.sleep(0.001)


async def test_a_server_that_ends_each_connection_at_once_is_not_stormed(autojump_clock: MockClock) -> None:
    async def connect(*_: object) -> wire_module.Wire:
        await trio.lowlevel.checkpoint()
        opened.append(trio.current_time())
        ours, theirs = socket.socketpair()
        theirs.close()
        return wire_module.Wire(ours, ServerInfo(), Parser())

    opened = list[float]()
    client = Owner().client
    with pytest.MonkeyPatch.context() as patch, trio.move_on_after(10):
        patch.setattr(client_module, "open_wire", connect)
        await client.connect()
        await client.run()
    assert opened[1] == 0.0  # once, it may well be chance
    assert 10 < len(opened) < 30


async def test_a_lame_duck_without_a_successor_is_kept() -> None:
    with trio.fail_after(10):
        async with scripted_server() as only:
            owner, got = Owner(only), trio.Event()
            owner.client.subscribe("news.a", lambda _: got.set())
            async with owner.running(only) as connection:
                await connection.send(b'INFO {"ldm":true}\r\nMSG news.a 1 1\r\nx\r\n')
                await got.wait()
                assert owner.told == []


async def test_the_servers_of_a_cluster_are_learnt_from_the_one_that_is_named() -> None:
    with trio.fail_after(30):
        async with scripted_server() as named, scripted_server() as told:
            owner, port = Owner(named), told.url.rpartition(":")[2]
            async with owner.running(named) as connection:
                await connection.send(b'INFO {"ldm":true,"connect_urls":["127.0.0.1:%s"]}\r\n' % port.encode())
                await told.greet()


async def test_what_was_asked_for_and_not_confirmed_fails_at_once_when_the_connection_ends() -> None:
    with trio.fail_after(10):
        async with scripted_server() as first:
            owner = Owner(first)
            async with owner.running(first) as connection:
                confirmation = owner.client.confirmation()
                await connection.expect(b"PING\r\n")
                await connection.send(b"-ERR 'Slow Consumer'\r\n")
                with pytest.raises(BusError, match="may have been done"):
                    await confirmation.wait()


async def test_a_denied_subject_fails_only_those_who_asked_for_it() -> None:
    denied = b"-ERR 'Permissions Violation for Publish to \"news.a\"'\r\n"
    with trio.fail_after(10):
        async with scripted_server() as first:
            owner = Owner(first)
            async with owner.running(first) as connection:
                confirmation = owner.client.confirmation()
                await connection.expect(b"PING\r\n")
                await connection.send(denied + b"PONG\r\n")
                with pytest.raises(BusError, match=r"does not permit this user to publish to news\.a"):
                    await confirmation.wait_permitted(PUBLISH, "news.a")
                await confirmation.wait_permitted(PUBLISH, "news.b")
                later = owner.client.confirmation()
                await connection.expect(b"PING\r\n")
                await connection.send(b"PONG\r\n")
                await later.wait_permitted(PUBLISH, "news.a")


async def test_what_was_heard_before_the_last_words_of_a_server_is_not_left_lying() -> None:
    # What a burst leaves pending is sent at its end. Without this, it would wait for the first read after the outage.
    with trio.fail_after(10):
        async with scripted_server() as only:
            owner, told = Owner(only), list[str]()
            owner.client.subscribe("news.a", lambda _: told.append("message"))
            owner.client.after_read = lambda: told.append("end of the burst")
            async with owner.running(only) as connection:
                await connection.send(b"MSG news.a 1 1\r\nx\r\n-ERR 'Slow Consumer'\r\n")
                await connection.until_left()
                assert told == ["message", "end of the burst"]


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
async def test_an_impossible_host_name_is_an_error_like_any_other(host: str) -> None:
    with trio.fail_after(10), pytest.raises(BusError, match="cannot connect to NATS at"):
        await wire_module.open_wire(parse_url(f"nats://{host}"), NatsOptions(()), "test")


async def test_a_server_with_an_impossible_host_name_is_passed_over() -> None:
    with trio.fail_after(10):
        async with scripted_server() as only:
            owner = Owner(only)
            async with owner.running(only) as connection:
                await connection.send(b'INFO {"ldm":true,"connect_urls":["a..b:4222"]}\r\n')
                await only.greet()


async def test_a_server_that_never_says_who_it_is_is_named_with_all_that_were_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire_module, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "START_SECONDS", 1.0)
    with trio.fail_after(10):
        async with scripted_server() as silent, scripted_server() as other:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(speak_http, other)
                with pytest.raises(BusError) as caught:
                    await Owner(silent, other).client.connect()
                nursery.cancel_scope.cancel()
    assert str(caught.value) == (
        f"cannot connect to NATS at {silent.url.removeprefix('nats://')}: no answer within 0.1 seconds; "
        f"cannot connect to NATS at {other.url.removeprefix('nats://')}: "
        "this is not a NATS server: it sent b'HTTP/1.1 400 Bad Request'"
    )


async def speak_http(server: ScriptedServer) -> None:
    while True:
        await (await server.accept()).send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


# --- room in the queue --------------------------------------------------------------------------------------------

_MORE_THAN_SOCKETS_TAKE = 64 * 1024 * 1024


async def test_publications_wait_for_room_in_their_order_and_none_is_refused() -> None:
    with trio.fail_after(20):
        async with scripted_server() as first:
            client = (owner := Owner(first)).client
            async with owner.running(first) as connection, trio.open_nursery() as nursery:
                passed = list[int]()

                async def publish(number: int) -> None:
                    await client.wait_room(client_module.ROOM_BYTES)
                    passed.append(number)
                    client.send(bytes(client_module.ROOM_BYTES))

                client.send(bytes(_MORE_THAN_SOCKETS_TAKE))
                for number in range(3):
                    nursery.start_soon(publish, number)
                    await wait_all_tasks_blocked(0.01)
                assert passed == []
                while len(passed) < 3:
                    await connection.skip()
                assert passed == [0, 1, 2]


async def test_a_publication_with_room_does_not_wait_however_large_it_is() -> None:
    with trio.fail_after(20):
        async with scripted_server() as first:
            owner = Owner(first)
            async with owner.running(first):
                with trio.testing.assert_no_checkpoints():
                    await owner.client.wait_room(10 * client_module.ROOM_BYTES)
                owner.client.send(b"PING\r\n")
                with trio.testing.assert_no_checkpoints():
                    await owner.client.wait_room(client_module.ROOM_BYTES - 6)


async def test_a_publication_that_finds_no_room_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ROOM_SECONDS", 0.05)
    with trio.fail_after(20):
        async with scripted_server() as first:
            owner = Owner(first)
            async with owner.running(first):
                owner.client.send(bytes(_MORE_THAN_SOCKETS_TAKE))
                with pytest.raises(BusError, match=r"^NATS does not keep up; nothing was done$"):
                    await owner.client.wait_room(1)


async def test_those_who_wait_for_room_learn_that_the_connection_has_ended() -> None:
    with trio.fail_after(20):
        async with scripted_server() as first:
            owner = Owner(first)
            async with owner.running(first) as connection, trio.open_nursery() as nursery:
                owner.client.send(bytes(_MORE_THAN_SOCKETS_TAKE))
                nursery.start_soon(owner.client.wait_room, 1)
                await wait_all_tasks_blocked(0.01)
                await connection.hang_up()
            assert "lost" in owner.told
