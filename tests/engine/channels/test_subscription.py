"""A subscription holds its channel open in hub and bus, and leaves nothing behind whatever happens to it."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.channels.joining.history_sender import HistorySender
from fanline.engine.channels.subscription import (
    SUBSCRIPTION,
    ChannelInterest,
    ChannelSubscription,
    Router,
    SubscriptionEvent,
    SubscriptionState,
)
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.life import Life
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.engine.settings import EngineSettings
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.websocket.frames import Opcode
from tests.engine.parts import make_hub
from tests.engine.running import RunningEngine, running_engine
from tests.support.raw_client import RawClient, connect

ENCODING = encoding_of(JSON, deflated=False)
CHANNEL = "news:all"
STEPS = ("join", "join fails", "rejoin fails", "cut off", "leave", "leave twice", "ask")


class FailingBus(MemoryBus):
    """Confirms no join while `away`; knows what is joined."""

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        super().__init__(broker)
        self.away = False
        self.joined: list[str] = []

    def join(self, channel: str) -> None:
        assert channel not in self.joined
        self.joined.append(channel)
        super().join(channel)

    def leave(self, channel: str) -> None:
        self.joined.remove(channel)
        super().leave(channel)

    def is_joined(self, channel: str) -> bool:
        return False

    async def wait_joined(self, channel: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise BusError("away")


def an_outbox(nursery: trio.Nursery) -> tuple[Outbox, socket.socket]:
    near, far = socket.socketpair()
    far.close()
    return Outbox(near, Life(), OutboxShared(nursery, Counters(), max_bytes=1, max_messages=16)), near


def fail_if(wanted: bool) -> None:
    if wanted:
        raise BusError("no history")


def test_a_subscription_that_has_left_comes_to_no_other_state() -> None:
    assert {target for (state, _), target in SUBSCRIPTION.items() if state is SubscriptionState.LEAVING} == {
        SubscriptionState.LEAVING
    }
    for state in (SubscriptionState.JOINING, SubscriptionState.ACTIVE):
        assert {event for known, event in SUBSCRIPTION if known is state} == set(SubscriptionEvent)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["join", "join fails", "rejoin fails", "leave", "ask"])),
        max_size=30,
    )
)
@settings(max_examples=150)
def test_hub_and_bus_hold_what_active_subscriptions_hold_and_nothing_else(steps: list[tuple[int, str]]) -> None:
    async def check() -> None:
        async with trio.open_nursery() as nursery:
            bus, (hub, counters) = FailingBus(), make_hub()
            router = Router(hub, bus, timeout=1)
            outboxes = [an_outbox(nursery) for _ in range(3)]
            active: dict[int, ChannelSubscription] = {}
            for number, step in steps:
                bus.away = step == "join fails"
                if step == "ask":
                    async with ChannelInterest(router, CHANNEL) as channel:
                        assert channel.interest == len(active) + 1
                elif step.startswith("leave") and number in active:
                    left = active.pop(number)
                    left.leave()
                    if step == "leave twice":
                        left.leave()
                elif not step.startswith("leave"):
                    held = active.get(number) or ChannelSubscription(router, CHANNEL, ENCODING, outboxes[number][0])
                    try:
                        async with held:
                            fail_if(step == "rejoin fails")
                            held.pause()
                            fail_if(step == "cut off")
                            held.activate()
                        active[number] = held
                    except BusError:
                        if step == "cut off":
                            active.pop(number, held).leave()  # as the session's end does
                        assert (held.state is SubscriptionState.ACTIVE) == (number in active)
                assert bus.joined == [CHANNEL] * bool(active)
                assert counters.channels == bool(active)
                assert [outbox.subscriptions for outbox, _ in outboxes] == [number in active for number in range(3)]
            for _, near in outboxes:
                near.close()

    trio.run(check)


async def test_a_cancelled_join_leaves_nothing_behind() -> None:
    async with trio.open_nursery() as nursery:
        bus, (hub, counters) = FailingBus(), make_hub()
        outbox, near = an_outbox(nursery)
        subscription = ChannelSubscription(Router(hub, bus, timeout=1), CHANNEL, ENCODING, outbox)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with subscription:
                subscription.activate()
        assert (bus.joined, counters.channels, subscription.state) == ([], 0, SubscriptionState.JOINING)
        near.close()


# --- what a client sees ------------------------------------------------------------------------------------------


@asynccontextmanager
async def engine_and_client(
    idle_timeout: float = 75.0, **namespaces: Namespace
) -> AsyncIterator[tuple[RunningEngine, RawClient]]:
    with trio.fail_after(20):
        async with running_engine(EngineSettings(namespaces=namespaces, idle_timeout=idle_timeout)) as engine:
            async with connect(engine.host, engine.port) as client:
                yield engine, client


async def sub(client: RawClient, channel: str, **fields: Any) -> dict[str, Any]:
    return await client.ask({"t": "sub", "c": channel, "i": "s", **fields})


@pytest.mark.parametrize("channel", ["news:all", "task:1"])
async def test_a_retry_of_a_sub_that_was_refused_while_the_bus_was_away_is_a_subscription(
    channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(bus: MemoryBus, channel: str) -> None:
        await trio.lowlevel.checkpoint()
        raise BusError("away")

    async with engine_and_client() as (engine, client):
        with monkeypatch.context() as outage:
            outage.setattr(MemoryBus, "is_joined", lambda bus, channel: False)
            outage.setattr(MemoryBus, "wait_joined", away)
            assert (await sub(client, channel))["d"]["code"] == "unavailable"
            unsub = await client.ask({"t": "unsub", "c": channel, "i": "u"})
            assert unsub["d"]["code"] == "not_subscribed"
        assert (await sub(client, channel))["t"] == "ok"
        await engine.bus.publish(channel, b'"hello"')
        assert (await client.json())["d"] == "hello"


@pytest.mark.parametrize("failure", ["unavailable", "bad_offset", "bad_message"])
async def test_a_second_sub_that_fails_leaves_the_subscription_as_it_was(
    failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_and_client() as (engine, client):
        await engine.bus.store("task:1", b'"first"', "1")
        assert (await sub(client, "task:1"))["t"] == "ok"
        starts: dict[str, dict[str, Any]] = {
            "unavailable": {"o": 0},
            "bad_offset": {"o": 99},
            "bad_message": {"d": {"last": "many"}},
        }
        engine.broker.available = failure != "unavailable"
        assert (await sub(client, "task:1", **starts[failure]))["d"]["code"] == failure
        engine.broker.available = True
        await engine.bus.store("task:1", b'"second"', "2")
        assert (await client.json())["d"] == "second"
        assert (await client.ask({"t": "unsub", "c": "task:1", "i": "u"}))["t"] == "ok"


async def test_a_connection_that_ends_in_the_middle_of_a_second_sub_leaves_all_its_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sending = trio.Event()

    async def stuck(*_: object) -> None:
        sending.set()
        await trio.sleep_forever()

    async with engine_and_client(idle_timeout=0.5) as (engine, client):
        await engine.bus.store("task:1", b"1", "1")
        for channel in ("task:1", "task:2", "news:all"):
            assert (await sub(client, channel))["t"] == "ok"
        monkeypatch.setattr(HistorySender, "send", stuck)
        await client.say({"t": "sub", "c": "task:1", "o": 0, "i": "s"})
        await sending.wait()
        while (await client.message()).opcode is not Opcode.CLOSE:  # it was silent for too long
            pass
        assert engine.server.statistics().channels == 0


async def test_messages_that_come_while_a_second_sub_is_prepared_are_not_repeated_after_its_answer() -> None:
    async with engine_and_client() as (engine, client):
        for number in range(5):
            await engine.bus.store("task:1", b"%d" % number, f"{number}")
        assert (await sub(client, "task:1"))["o"] == 5
        answer = await sub(client, "task:1", o=2)
        assert (answer["o"], answer["d"]["count"]) == (5, 3)
        await engine.bus.store("task:1", b"5", "5")
        assert [(await client.json())["d"] for _ in range(4)] == [2, 3, 4, 5]


async def test_an_urgent_message_of_any_everywhere_namespace_reaches_every_connection() -> None:
    async with engine_and_client(alarm=Namespace(everywhere=True)) as (engine, client):
        async with connect(engine.host, engine.port) as subscriber:
            await sub(subscriber, "alarm:fire")
            await engine.bus.publish("alarm:fire", b'{"v":1,"pr":9,"d":"out!"}')
            await engine.bus.publish("alarm:fire", b'{"v":1,"pr":7,"d":"drill"}')
            assert [(await subscriber.json())["d"] for _ in range(2)] == ["out!", "drill"]
        assert (await client.json())["d"] == "out!"
        assert (await client.ask({"t": "ping", "i": "p"}))["t"] == "pong"
