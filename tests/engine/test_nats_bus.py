"""What only the real bus can meet: outages, wrong servers, bugs in the receiver."""

import socket

import pytest
import trio

from engine.bus import BusError, Place
from engine.nats_bus import open_nats_bus
from engine.nats_options import NatsOptions
from tests.engine.test_bus_contract import Inbox, join
from tests.nats import running_nats


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
            await server.start()
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

            def deliver(channel: str, payload: bytes, place: Place | None) -> None:
                if payload == b"bad":
                    raise ZeroDivisionError
                got.set()

            bus.attach(deliver, lambda _: None)
            await join(bus, "news:a")
            await bus.publish("news:a", b"bad")
            await bus.publish("news:a", b"good")
            await got.wait()
    assert "fanline.pub.news.a could not be delivered" in caplog.text
