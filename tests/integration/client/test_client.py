"""`fanline.Client` against a real server: workers, NATS and sockets."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import trio

import fanline
from fanline.nats.publish import open_nats_publisher
from fanline.protocol.envelope import Envelope
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds
from tests.support.faults.fault_proxy import running_proxy
from tests.support.nats.server import running_nats
from tests.support.servers.serve import Serve, running_serve, wait_until


async def test_a_client_whose_worker_is_killed_reconnects_by_itself_and_keeps_receiving() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve, fanline.Client(serve.url) as client:
            async with client.subscribe("news:all") as messages:
                await client.publish("news:all", "before")
                assert (await anext(messages)).data == "before"
                for pid in serve.worker_pids():
                    os.kill(pid, signal.SIGKILL)
                await _publish_until_heard(client, messages)


async def _publish_until_heard(client: fanline.Client, messages: fanline.Subscription[fanline.Message]) -> None:
    """A publish during the loss may fail, with an unknown outcome; then it is repeated."""
    while True:
        try:
            await client.publish("news:all", "after")
        except fanline.ConnectionLost as error:
            if error.final:
                raise
            continue
        assert (await anext(messages)).data == "after"
        return


async def test_both_codecs_see_the_same_data_however_it_was_published() -> None:
    data = {"text": "grüezi", "list": [1, 2.5, None, True], "big": 2**53 + 1, "nested": {"a": {"b": []}}}
    with trio.fail_after(90):
        async with (
            running_serve() as serve,
            fanline.Client(serve.url) as json,
            fanline.Client(serve.url, codec="cbor") as cbor,
        ):
            async with json.subscribe("news:all") as in_json, cbor.subscribe("news:all") as in_cbor:
                first = await json.publish("news:all", data, event="from_json")
                second = await cbor.publish("news:all", data, event="from_cbor")
                assert (second.offset, second.duplicate) == (None, False)
                await _publish_over_nats(serve, data)
                pairs = [(await anext(in_json), await anext(in_cbor)) for _ in range(3)]
    for one, other in pairs:
        assert one == other
        assert one.data == data
        assert one.channel == "news:all"
        assert one.time is not None
    assert sorted(str(one.event) for one, _ in pairs) == ["from_cbor", "from_json", "from_nats"]
    assert {first.id, second.id} <= {one.id for one, _ in pairs}


async def _publish_over_nats(serve: Serve, data: object) -> None:
    async with open_nats_publisher(serve.producer) as publisher:
        # Without a time each worker would add its own.
        publisher.publish(Envelope(channel="news:all", event="from_nats", data=data, time=1))


async def test_byte_strings_survive_between_cbor_clients() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url, codec="cbor") as client:
            async with client.subscribe("news:all") as messages:
                await client.publish("news:all", {"blob": b"\x00\xff"})
                assert (await anext(messages)).data == {"blob": b"\x00\xff"}


async def test_a_refused_command_raises_the_servers_code_and_the_connection_stays_open() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            with pytest.raises(fanline.ServerError) as caught:
                await client.publish("no channel", 1)
            assert caught.value.code == "bad_channel"
            with pytest.raises(fanline.ServerError) as caught:
                async with client.subscribe("news:all", "news:a*"):
                    pass
            assert caught.value.code == "bad_channel"
            assert await client.ping() < 10
            async with client.subscribe("news:all", "news:other") as messages:
                await client.publish("news:other", 1)
                assert (await anext(messages)).channel == "news:other"


async def test_a_server_that_stops_for_good_is_waited_for_until_the_callers_deadline() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            await client.ping()
            await serve.child.stop(10)
            with trio.move_on_after(0.5) as scope:
                await client.publish("news:all", 1)
            assert scope.cancelled_caught


async def _publish_all(client: fanline.Client, channel: str, numbers: range) -> list[int | None]:
    return [(await client.publish(channel, number)).offset for number in numbers]


async def test_a_client_that_comes_back_while_nats_is_away_hears_everything_once_it_is_back() -> None:
    environ = {"FANLINE_ENGINE_BUS_TIMEOUT": "0.3"}
    with trio.fail_after(90):
        async with (
            running_nats() as nats,
            running_serve(workers=1, extra_args=("--nats", nats.url), env=environ) as serve,
            running_proxy(("127.0.0.1", serve.port), seed=0) as proxy,
            fanline.Client(f"ws://127.0.0.1:{proxy.port}/ws") as client,
            fanline.Client(serve.url) as publisher,
        ):
            async with client.subscribe("news:all") as ephemeral, client.subscribe("task:1") as durable:
                await publisher.publish("task:1", "before")
                assert (await anext(durable)).data == "before"
                nats.kill()
                await wait_until(lambda: "NATS connection lost" in serve.stderr_text())
                proxy.cut_all()
                with pytest.raises(fanline.ServerError, match="unavailable"):
                    async with client.subscribe("news:entered"):
                        pass
                await nats.start()
                await _publish_until_stored(publisher, "task:1", "after")
                assert (await anext(durable)).data == "after"
                await _publish_until_delivered(publisher, "news:all", ephemeral)
                async with client.subscribe("news:entered") as entered:
                    await publisher.publish("news:entered", "after")
                    assert (await anext(entered)).data == "after"


async def _publish_until_delivered(
    client: fanline.Client, channel: str, messages: fanline.Subscription[fanline.Message]
) -> None:
    """An ephemeral channel is not heard before it is subscribed again, and nothing says when that is."""
    while True:
        await client.publish(channel, "after")
        with trio.move_on_after(0.1):
            assert (await anext(messages)).data == "after"
            return


async def _publish_until_stored(client: fanline.Client, channel: str, data: object) -> None:
    once = str(uuid4())
    while True:
        with suppress(fanline.ServerError):
            await client.publish(channel, data, deduplication_id=once)
            return
        await trio.sleep(0.05)


async def test_workers_killed_while_300_messages_are_published_cost_no_subscriber_a_message_or_the_order() -> None:
    received: dict[str, list[int]] = {"one": [], "another": []}
    with trio.fail_after(90):
        async with (
            running_serve() as serve,
            fanline.Client(serve.url) as client,
            fanline.Client(serve.url) as other,
            fanline.Client(serve.url) as publisher,
        ):
            await publisher.publish("task:first", 0)  # by now it knows that `task` is durable

            async def read(name: str, subscription: fanline.Subscription[fanline.Message]) -> None:
                async with subscription as messages:
                    begun[name].set()
                    while len(received[name]) < 300:
                        received[name].append((await anext(messages)).data)

            begun = {name: trio.Event() for name in received}
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, "one", client.subscribe("task:1"))
                nursery.start_soon(read, "another", other.subscribe("task:1"))
                for event in begun.values():
                    await event.wait()
                nursery.start_soon(_kill_workers, serve, received["one"])
                offsets = await _publish_all(publisher, "task:1", range(300))
    assert received == {name: list(range(300)) for name in received}
    assert offsets == sorted(set(offsets), key=lambda offset: offset or 0)


async def _kill_workers(serve: Serve, received: list[int]) -> None:
    """All workers at once, twice: when one third has arrived, and when two thirds have."""
    for count in (100, 200):
        await wait_until(lambda count=count: len(received) >= count, 60)  # type: ignore[misc]  # mypy cannot infer it
        for pid in serve.worker_pids():
            os.kill(pid, signal.SIGKILL)


async def test_two_subscriptions_of_one_client_each_get_what_they_asked_for() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            await _publish_all(client, "task:1", range(10))
            async with client.subscribe("task:1") as live, client.subscribe("task:1", last=3) as tail:
                await _publish_all(client, "task:1", range(10, 12))
                async with client.subscribe("task:1", start=True) as whole:
                    await _publish_all(client, "task:1", range(12, 14))
                    assert [(await anext(live)).data for _ in range(4)] == [10, 11, 12, 13]
                    assert [(await anext(tail)).data for _ in range(7)] == list(range(7, 14))
                    assert [(await anext(whole)).data for _ in range(14)] == list(range(14))


async def test_a_stored_position_continues_in_another_client_and_a_repeat_is_one_message() -> None:
    once = str(uuid4())
    with trio.fail_after(90):
        async with running_serve() as serve:
            async with fanline.Client(serve.url) as client, client.subscribe("task:1") as messages:
                first = await client.publish("task:1", "one", deduplication_id=once)
                assert await client.publish("task:1", "one", deduplication_id=once) == first._replace(duplicate=True)
                assert (await anext(messages)).data == "one"
                stored = messages.positions
                await client.publish("task:1", "two")
            async with fanline.Client(serve.url, codec="cbor") as client:
                async with client.subscribe("task:1", positions=stored) as messages:
                    assert messages.recovered
                    assert (await anext(messages)).data == "two"


async def test_history_that_is_gone_is_reported_with_its_range(tmp_path: Path) -> None:
    config = tmp_path / "fanline.toml"
    config.write_text("[namespaces.task]\ndurable = true\nhistory = 3\n")
    with trio.fail_after(90):
        serving = running_serve(workers=1, extra_args=("--config", str(config)))
        async with serving as serve, fanline.Client(serve.url) as client:
            await _publish_all(client, "task:1", range(2))
            async with client.subscribe("task:1") as messages:
                start = messages.positions
            offsets = await _publish_all(client, "task:1", range(2, 10))
            async with client.subscribe("task:1", positions=start, gaps=True) as items:
                assert not items.recovered
                gap = await anext(items)
                assert isinstance(gap, fanline.Gap)
                assert (gap.reason, gap.last) == ("expired", offsets[-4])
                rest = [await anext(items) for _ in range(3)]
    assert [item.offset for item in rest if isinstance(item, fanline.Message)] == offsets[-3:]
