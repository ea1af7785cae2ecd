"""What only the real bus can meet: outages, wrong servers, bugs in the receiver."""

import socket

import pytest
import trio
import trio.lowlevel
import trio_asyncio
from nats.aio.msg import Msg

from fanline.engine.bus.interface import BusError, NoListenerError, StreamPosition
from fanline.engine.bus.nats.bus import NatsBus, open_nats_bus
from fanline.engine.bus.nats.options import NatsOptions
from fanline.engine.bus.nats.requests import Outgoing
from tests.engine.bus.test_bus_contract import Inbox, join
from tests.support.nats_client import connect_nats
from tests.support.nats_server import running_nats


async def until_connected(bus: NatsBus) -> None:
    while not bus.connected:
        await trio.sleep(0.01)


async def test_joins_survive_an_outage_and_publishes_are_refused_during_it() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            inbox = Inbox(bus)
            await join(bus, "news:before")
            server.kill()
            while bus.connected:
                await trio.sleep(0.01)
            with pytest.raises(BusError, match="not connected"):
                await bus.publish("news:before", b"lost")
            bus.join("news:meanwhile")
            with pytest.raises(BusError, match="not connected"):
                await bus.wait_joined("news:meanwhile")
            await server.start()
            await until_connected(bus)
            await bus.wait_joined("news:meanwhile")
            await bus.publish("news:before", b"1")
            await bus.publish("news:meanwhile", b"2")
            assert await inbox.wait(2) == [("news:before", b"1"), ("news:meanwhile", b"2")]


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


async def test_no_server_is_one_clear_sentence_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with trio.fail_after(20), pytest.raises(BusError) as caught:
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


async def test_a_part_of_an_answer_is_none_when_the_connection_breaks_in_the_middle() -> None:
    # The batch had begun to arrive; what was missing of it would have looked as if it were not stored.
    with trio.fail_after(20):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            bus.attach(lambda *_: None, lambda _: None)
            refusals: list[BusError] = []

            async def read() -> None:
                try:
                    await bus.read("task:a", 1)
                except BusError as error:
                    refusals.append(error)

            async with trio.open_nursery() as nursery:
                server.pause()
                nursery.start_soon(read)
                while not bus._requests:
                    await trio.lowlevel.checkpoint()
                (request,) = bus._requests.values()
                request.take(Msg(bus._client, data=b"x", headers={"Nats-Sequence": "1"}))
                server.kill()
            assert len(refusals) == 1


async def test_stored_messages_are_not_delivered_between_an_outage_and_the_word_of_it() -> None:
    # The first message after the outage would be taken to follow on the last one before it, and what was missed in
    # between be judged as if the worker had only just lost it.
    with trio.fail_after(30):
        async with running_nats() as server:
            async with (
                open_nats_bus(NatsOptions((server.url,)), "a") as bus,
                open_nats_bus(NatsOptions((server.url,)), "b") as other,
            ):
                inbox = Inbox(bus)
                events: list[object] = []
                gate = trio.Event()
                deliver = bus._sinks[True]._take

                def take(message: Msg) -> None:
                    deliver(message)
                    events.append(message.data)

                bus._sinks[True]._take = take
                bus._on_loss = lambda _: events.append("loss")
                tell = bus._tell_loss

                async def late(since: float) -> None:
                    await trio_asyncio.trio_as_aio(gate.wait)()
                    await tell(since)

                bus._tell_loss = late  # type: ignore[method-assign]  # JetStream takes its time
                await join(bus, "task:a")
                server.kill()
                while bus.connected or other.connected:
                    await trio.sleep(0.01)
                await server.start()
                await until_connected(bus)
                await until_connected(other)
                await join(bus, "task:b")  # one round trip: all its subscriptions are in effect again
                await other.store("task:a", b"early", "1")
                while b"early" not in events:
                    await trio.sleep(0.01)
                assert inbox.messages == []
                gate.set()
                while "loss" not in events:
                    await trio.sleep(0.01)
                await other.store("task:a", b"later", "2")
                assert await inbox.wait(1) == [("task:a", b"later")]


async def test_joins_get_their_turn_however_much_is_published() -> None:
    with trio.fail_after(20):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            bus.attach(lambda *_: None, lambda _: None)
            publish = bus._client.publish

            async def publish_more(subject: str, *rest: object) -> None:
                bus.send(Outgoing(subject, b"x"))  # there is always more to send
                await publish(subject, *rest)  # type: ignore[arg-type]  # passed on as it came
                await trio_asyncio.trio_as_aio(trio.lowlevel.checkpoint)()

            bus._client.publish = publish_more  # type: ignore[method-assign,assignment]  # a busy worker
            await bus.publish("news:b", b"x")
            await join(bus, "news:a")


async def test_beats_are_heard_again_after_an_outage() -> None:
    with trio.fail_after(30):
        async with running_nats() as server, open_nats_bus(NatsOptions((server.url,)), "test") as bus:
            heard: list[str] = []
            bus.hear_beats(heard.append)
            server.kill()
            while bus.connected:
                await trio.sleep(0.01)
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
                server.pause()
                nursery.start_soon(call)
                while not bus._requests:
                    await trio.lowlevel.checkpoint()
                server.kill()
            assert not isinstance(refusals[0], NoListenerError)
