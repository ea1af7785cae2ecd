"""What only the bus on NATS can meet: outages, unsuitable servers, faults in the receiver."""

import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import time_ns

import msgspec
import pytest
import trio

from fanline.engine.bus.errors import BusError, NoListenerError, TooLargeError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.jetstream import bucket_config
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.bus.nats.requests import requests as requests_module
from fanline.engine.bus.stored import StreamPosition
from fanline.protocol.nats.names import Bucket
from fanline.protocol.nats.options import NatsOptions
from tests.engine.bus.cluster import Inbox, join, nats_producers
from tests.engine.bus.test_store_contract import Changes
from tests.support.faults.fault_proxy import running_proxy
from tests.support.nats.client import connect_nats
from tests.support.nats.server import NatsServer, running_nats

REPUBLISHED = {
    "Nats-Subject": "fanline.pub.task.a",
    "Nats-Sequence": "1",
    "Nats-Last-Sequence": "0",
    "Nats-Time-Stamp": "2026-01-01T00:00:00Z",
}
"""Headers of a message as its stream republishes it."""


async def until_connected(bus: NatsBus) -> None:
    while not bus.connected:
        await trio.sleep(0.01)


async def until_disconnected(bus: NatsBus) -> None:
    while bus.connected:
        await trio.sleep(0.01)


@asynccontextmanager
async def running_without_jetstream(server: NatsServer, directory: Path) -> AsyncIterator[None]:
    """In place of a killed server, another one on its port that has no JetStream."""
    substitute = NatsServer(directory, jetstream=False)
    substitute.port = server.port
    await substitute.start()
    try:
        yield
    finally:
        substitute.kill()


async def test_joins_survive_an_outage_and_publishes_are_refused_during_it() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            inbox = Inbox(bus)
            await join(bus, "news:before")
            server.kill()
            await until_disconnected(bus)
            with pytest.raises(BusError, match="not connected"):
                await bus.publish("news:before", b"lost")
            bus.join("news:meanwhile")
            for channel in ("news:before", "news:meanwhile"):
                with pytest.raises(BusError, match="not connected"):
                    await bus.wait_joined(channel)
            await server.start()
            await until_connected(bus)
            await bus.wait_joined("news:meanwhile")
            await bus.publish("news:before", b"1")
            await bus.publish("news:meanwhile", b"2")
            assert await inbox.wait(2) == [("news:before", b"1"), ("news:meanwhile", b"2")]


async def test_a_watch_is_interrupted_by_an_outage_and_is_in_effect_again_once_it_is_confirmed() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            changes = Changes()
            await bus.kv_watch(Bucket.WORKERS, changes)
            server.kill()
            await until_disconnected(bus)
            assert not bus.kv_is_watched(Bucket.WORKERS)
            with pytest.raises(BusError, match="not connected"):
                await bus.kv_watch(Bucket.API_KEYS, changes)  # which takes effect later
            await server.start()
            while not (bus.kv_is_watched(Bucket.WORKERS) and bus.kv_is_watched(Bucket.API_KEYS)):
                await trio.sleep(0.01)
            assert changes.interruptions == 1
            await bus.kv_put(Bucket.WORKERS, "a", b"back", 10)
            await bus.kv_update(Bucket.API_KEYS, "b", b"new", 0)
            assert sorted(await changes.wait(2)) == [("a", b"back"), ("b", b"new")]


async def test_a_bucket_of_an_older_version_is_watched_from_then_on() -> None:
    async with running_nats() as server:
        with trio.fail_after(30):
            async with open_nats_bus(NatsOptions((server.url,)), "old") as bus:
                config = bucket_config(Bucket.API_KEYS, 0, 1, -1)
                del config["republish"]
                await bus.api("STREAM.DELETE", config["name"], b"")
                await bus.api("STREAM.CREATE", config["name"], msgspec.json.encode(config))
                await bus.kv_update(Bucket.API_KEYS, "kept", b"old", 0)
            async with open_nats_bus(NatsOptions((server.url,)), "new") as bus:
                changes = Changes()
                await bus.kv_watch(Bucket.API_KEYS, changes)
                await bus.kv_update(Bucket.API_KEYS, "a", b"new", 0)
                assert await changes.wait(1) == [("a", b"new")]
                assert set(await bus.kv_entries(Bucket.API_KEYS)) == {"kept", "a"}


async def test_a_thousand_joins_at_once_are_all_confirmed() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            inbox = Inbox(bus)
            async with trio.open_nursery() as nursery:
                for number in range(1000):
                    nursery.start_soon(join, bus, f"own:{number}")
            for number in range(1000):
                await bus.publish(f"own:{number}", b"x")
            assert len(await inbox.wait(1000)) == 1000


PassOn = Callable[[bytes, trio.SocketStream], Awaitable[None]]
"""Sends what a client has sent on to the server."""


@asynccontextmanager
async def proxied(server: NatsServer, pass_on: PassOn, reply_seconds: float = 0.0) -> AsyncIterator[NatsOptions]:
    """A proxy to a server, whose replies it may make late: how to reach it."""

    async def handle(client: trio.SocketStream) -> None:
        async def pass_replies(scope: trio.CancelScope) -> None:
            async for data in upstream:
                await trio.sleep(reply_seconds)
                await client.send_all(data)
            scope.cancel()

        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as upstream, client:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pass_replies, nursery.cancel_scope)
                    async for data in client:
                        await pass_on(bytes(data), upstream)
                    nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield NatsOptions((f"nats://127.0.0.1:{listener.socket.getsockname()[1]}",))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def tapped(server: NatsServer, reply_seconds: float = 0.0) -> AsyncIterator[tuple[NatsOptions, bytearray]]:
    """A proxy to a server: how to reach it, and what its clients have sent."""
    sent = bytearray()

    async def pass_on(data: bytes, upstream: trio.SocketStream) -> None:
        sent.extend(data)
        await upstream.send_all(data)

    async with proxied(server, pass_on, reply_seconds) as options:
        yield options, sent


async def test_a_store_that_always_answers_later_than_it_is_asked_again_is_still_understood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests_module, "QUESTION_SECONDS", 0.05)
    with trio.fail_after(20):
        async with (
            running_nats() as server,
            tapped(server, reply_seconds=0.2) as (options, sent),
            open_nats_bus(options, "test") as bus,
        ):
            await bus.store("task:1", b"x", "i1")
            sent.clear()
            page = await bus.read("task:1", 1)
            assert [message.payload for message in page.messages] == [b"x"]
            assert sent.count(b"DIRECT.GET") > 1


async def test_a_join_is_confirmed_by_a_ping_behind_its_subscription() -> None:
    # One in front of it proves nothing: whatever is published before the server takes the subscription is lost.
    with trio.fail_after(20):
        async with running_nats() as server, tapped(server) as (options, sent), open_nats_bus(options, "test") as bus:
            Inbox(bus)
            for number in range(20):
                await join(bus, f"news:{number}")
                assert b"\r\nPING\r\n" in sent.partition(b"SUB fanline.pub.news.%d " % number)[2]


async def test_no_server_is_one_clear_sentence_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(60), pytest.raises(BusError) as caught:
        async with open_nats_bus(NatsOptions((f"nats://me:secret@127.0.0.1:{port}",)), "test"):
            pass
    assert str(caught.value).startswith(f"cannot connect to NATS at 127.0.0.1:{port}: ")
    assert "secret" not in str(caught.value)


async def test_an_old_server_is_refused_with_the_version_it_needs() -> None:
    async def old_server(stream: trio.SocketStream) -> None:
        await stream.send_all(b'INFO {"server_id":"x","version":"2.10.7","max_payload":1048576,"proto":1}\r\n')
        async for data in stream:
            if b"PING" in data:
                await stream.send_all(b"PONG\r\n")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, old_server, [listener])
            port = listener.socket.getsockname()[1]
            with pytest.raises(BusError, match=r"version 2\.10\.7.*needs 2\.11"):
                async with open_nats_bus(NatsOptions((f"nats://127.0.0.1:{port}",)), "test"):
                    pass
            nursery.cancel_scope.cancel()


async def test_a_bug_in_the_receiver_is_logged_and_the_next_message_still_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with trio.fail_after(20):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            got = trio.Event()

            def deliver(channel: str, payload: bytes, position: StreamPosition | None) -> None:
                if payload == b"bad":
                    raise ZeroDivisionError
                got.set()

            bus.attach(deliver, lambda _: None)
            await join(bus, "news:a")
            await bus.publish("news:a", b"bad")
            await bus.publish("news:a", b"good")
            await got.wait()
    assert "fanline.pub.news.a could not be delivered" in caplog.text


async def test_a_part_of_an_answer_is_none_when_the_connection_ends_in_the_middle() -> None:
    # Taken for the whole batch, it would make the missing messages look as if they were not stored.
    with trio.fail_after(20):
        async with running_nats() as server, running_proxy(("127.0.0.1", server.port), seed=0) as proxy:
            async with open_nats_bus(NatsOptions((f"nats://127.0.0.1:{proxy.port}",)), "test") as bus:
                for number in range(10):
                    await bus.store("task:a", bytes(100_000), str(number))
                proxy.end_after(350_000)  # bytes: three messages of the batch, and a part of the fourth
                with pytest.raises(BusError, match="may have been done"):
                    await bus.read("task:a", 1)


async def test_an_outage_is_reported_before_any_stored_message_is_delivered_and_without_waiting_for_jetstream(
    tmp_path: Path,
) -> None:
    # A message delivered before the report would be taken to follow the last one before the outage. A report that waits
    # for JetStream keeps every durable channel silent while a cluster elects its leaders.
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            events = list[bytes]()
            reported, delivered = trio.Event(), trio.Event()

            def deliver(channel: str, payload: bytes, position: StreamPosition | None) -> None:
                events.append(payload)
                delivered.set()

            def on_loss(since: float) -> None:
                events.append(b"loss")
                reported.set()

            bus.attach(deliver, on_loss)
            await join(bus, "task:a")
            server.kill()
            await until_disconnected(bus)
            async with running_without_jetstream(server, tmp_path):
                await reported.wait()
                async with connect_nats(server.url) as stream:
                    await stream.publish(("fanline.out.task.a", b"early"), headers=REPUBLISHED)
                await delivered.wait()
            assert events == [b"loss", b"early"]


async def test_a_stored_message_that_comes_before_the_subscriptions_are_confirmed_is_left_to_the_store() -> None:
    # It would be taken to follow the last message before the outage, and what was missed in between would be lost.
    with trio.fail_after(30):
        async with running_nats() as server, holding(server) as (options, hold), open_nats_bus(options, "test") as bus:
            events = list[bytes]()
            reported = trio.Event()

            def on_loss(since: float) -> None:
                events.append(b"loss")
                reported.set()

            bus.attach(lambda channel, payload, position: events.append(payload), on_loss)
            await join(bus, "task:a")
            await join(bus, "news:a")
            hold.next()
            server.kill()
            await until_disconnected(bus)
            await server.start()
            await hold.held.wait()  # all subscriptions have passed, and the PING behind them has not
            async with connect_nats(server.url) as stream:
                await stream.publish(("fanline.out.task.a", b"early"), headers=REPUBLISHED)
                await stream.publish(("fanline.pub.news.a", b"ephemeral"))
                while not events:
                    await trio.sleep(0.001)
                hold.go.set()
                await reported.wait()
            assert events == [b"ephemeral", b"loss"]


class Hold:
    """Lets the test hold back the PING behind the subscriptions that a client makes again."""

    def __init__(self) -> None:
        self.held, self.go = trio.Event(), trio.Event()
        self.go.set()

    def next(self) -> None:
        self.held, self.go = trio.Event(), trio.Event()

    async def pass_on(self, data: bytes, upstream: trio.SocketStream) -> None:
        if data.startswith(b"SUB ") and data.endswith(b"PING\r\n") and not self.go.is_set():
            await upstream.send_all(data.removesuffix(b"PING\r\n"))
            self.held.set()
            await self.go.wait()
            data = b"PING\r\n"
        await upstream.send_all(data)


@asynccontextmanager
async def holding(server: NatsServer) -> AsyncIterator[tuple[NatsOptions, Hold]]:
    """A proxy to a server: how to reach it, and what it holds back."""
    hold = Hold()
    async with proxied(server, hold.pass_on) as options:
        yield options, hold


@asynccontextmanager
async def always_more_to_send(bus: NatsBus) -> AsyncIterator[None]:
    """In the block, more is sent than NATS takes."""
    behind = trio.Event()

    async def send_on_and_on() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            try:
                for _ in range(200):
                    bus.send("fanline.pub.news.b", bytes(100_000))
            except BusError:
                behind.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_on_and_on)
        await behind.wait()
        yield
        nursery.cancel_scope.cancel()


async def test_joins_get_their_turn_however_much_is_published() -> None:
    with trio.fail_after(20):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            bus.attach(lambda *_: None, lambda _: None)
            async with always_more_to_send(bus):
                await join(bus, "news:a")


async def test_a_bus_that_is_behind_can_be_closed() -> None:
    with trio.fail_after(20):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            async with always_more_to_send(bus):
                pass


async def test_what_a_worker_that_was_frozen_itself_has_missed_may_be_missed_since_it_was_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The server gives it up after some seconds; what is said after that may have expired before the worker goes on.
    lost = list[float]()
    reported = trio.Event()

    def on_loss(since: float) -> None:
        lost.append(since)
        reported.set()

    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            bus.attach(lambda *_: None, on_loss)
            await join(bus, "task:a")
            frozen_at = time.time()
            monkeypatch.setattr(time, "time", lambda: time_ns() / 1e9 + 60)
            server.kill()
            await until_disconnected(bus)
            await server.start()
            await reported.wait()
    assert lost[0] <= frozen_at


async def test_a_message_that_is_too_large_with_its_headers_is_refused_before_the_server_ends_the_connection() -> None:
    with trio.fail_after(20):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            most = bus.client.info.max_payload
            with pytest.raises(TooLargeError):
                await bus.store("task:a", bytes(most - 500), "\N{GRINNING FACE}" * 200)
            assert await bus.store("task:a", bytes(most - 500), "a" * 200)


async def test_beats_are_heard_again_after_an_outage() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            heard: list[str] = []
            bus.hear_beats(heard.append)
            server.kill()
            await until_disconnected(bus)
            await server.start()
            await until_connected(bus)
            async with connect_nats(server.url) as producer:
                while not heard:
                    await producer.publish(("fanline.beat.task.a", b""))
                    await trio.sleep(0.01)
            assert set(heard) == {"task:a"}


async def test_a_call_ends_with_the_connection_and_says_that_it_may_have_been_done() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            refusals: list[BusError] = []

            async def call() -> None:
                with pytest.raises(BusError, match="may have been done") as caught:
                    await bus.call("task:a", b"cancel", 3600)
                refusals.append(caught.value)

            async with trio.open_nursery() as nursery:
                async with nats_producers(server.url) as producers:
                    await producers.listen("task:a", [None])
                    nursery.start_soon(call)
                    await producers.called.wait()
                server.kill()
            assert not isinstance(refusals[0], NoListenerError)
