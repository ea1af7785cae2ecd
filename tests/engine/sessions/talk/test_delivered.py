"""The receipt `delivered`: another member's kernel has taken a message, in this worker or another one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from weakref import ref

import pytest
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.memory import MemoryBus
from fanline.engine.namespaces import Namespace
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk import sent, taken
from fanline.engine.sessions.talk.sent import SentMessages
from fanline.engine.sessions.talk.taken import TakenMessages
from fanline.engine.settings import EngineSettings
from fanline.protocol.envelope import Envelope, encode_json
from tests.engine.running import RunningEngine, running_engine
from tests.engine.sessions.talk.people import Person, person
from tests.engine.sessions.talk.test_messages import message

CHAT = "/ws/chat/session/9"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "LOOK_SECONDS", 0.01)


@asynccontextmanager
async def two_workers(**settings: Any) -> AsyncIterator[tuple[RunningEngine, RunningEngine]]:
    with trio.fail_after(20):
        async with running_engine(**settings) as one, running_engine(broker=one.broker, **settings) as other:
            yield one, other


@asynccontextmanager
async def member(engine: RunningEngine, name: str, session: str = "9") -> AsyncIterator[Person]:
    """Somebody who is in the session, and hears nothing of who comes and goes."""
    async with person(engine, name, "/ws/chat") as client:
        answer = await client.ask({"type": "subscribe", "channel": session})
        assert answer["type"] == "subscription_result"
        yield client


async def statuses(client: Person, count: int) -> list[dict[str, Any]]:
    return [await client.hear("message_status_update") for _ in range(count)]


@pytest.mark.parametrize("is_same_worker", [True, False])
async def test_sent_then_delivered_each_once_whoever_has_the_other_member(is_same_worker: bool) -> None:  # S4-23
    async with two_workers() as (one, other), member(one, "Anna") as anna:
        async with member(one if is_same_worker else other, "Bert") as bert, member(other, "Carl") as carl:
            await anna.say(message("hello", message_id=17))
            stored, delivered = await statuses(anna, 2)
            assert (stored["status"], delivered["status"]) == ("sent", "delivered")
            assert delivered["message_id"] == stored["message_id"] == delivered["data"]["message_id"]
            assert (delivered["client_message_id"], delivered["session_id"]) == (17, "9")
            assert delivered["timestamp"]
            for each in (bert, carl):
                assert (await each.hear("new_message"))["message_id"] == stored["message_id"]
            for each in (anna, bert, carl):
                await each.hears_nothing()


async def test_it_is_not_said_before_sent_however_late_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer, store = trio.Event(), MemoryBus.store

    async def store_late(bus: MemoryBus, channel: str, *args: Any) -> Any:
        stored = await store(bus, channel, *args)
        await may_answer.wait()
        return stored

    with trio.fail_after(20):
        async with running_engine() as engine, member(engine, "Anna") as anna, member(engine, "Bert") as bert:
            monkeypatch.setattr(MemoryBus, "store", store_late)
            await anna.say(message("hello"))
            await bert.hear("new_message")
            may_answer.set()
            assert [each["status"] for each in await statuses(anna, 2)] == ["sent", "delivered"]


async def test_another_connection_of_the_sender_is_no_other_member() -> None:
    async with two_workers() as (one, other), member(one, "Anna") as anna, member(other, "Anna") as phone:
        await anna.say(message("hello"))
        assert (await anna.hear("message_status_update"))["status"] == "sent"
        await phone.hear("new_message")
        await anna.hears_nothing()
        async with member(other, "Bert"):
            await anna.say(message("hello"))
            assert [each["status"] for each in await statuses(anna, 2)] == ["sent", "delivered"]


async def test_those_whom_nobody_knows_are_members_too() -> None:
    with trio.fail_after(20):
        async with running_engine() as engine, person(engine, path="/ws/chat") as one:
            await one.ask({"type": "subscribe", "channel": "9"})
            await one.say(message("hello"))
            assert (await one.hear("message_status_update"))["status"] == "sent"
            await one.hears_nothing()
            async with person(engine, path="/ws/chat") as two:
                await two.ask({"type": "subscribe", "channel": "9"})
                await one.say(message("hello"))
                assert [each["status"] for each in await statuses(one, 2)] == ["sent", "delivered"]


async def test_a_member_that_does_not_read_has_not_been_delivered_anything_until_it_does() -> None:
    settings = EngineSettings(namespaces={"bulk": Namespace()}, outbox_bytes=64 * 1024 * 1024)
    with trio.fail_after(20):
        async with running_engine(settings, send_buffer=4096) as engine:
            async with member(engine, "Anna") as anna, member(engine, "Bert") as bert:
                await bert.ask({"type": "subscribe", "channel": "bulk:1"})
                for _ in range(100):
                    await engine.bus.publish("bulk:1", b'"%s"' % (b"x" * 60_000))
                await anna.say(message("hello"))
                assert (await anna.hear("message_status_update"))["status"] == "sent"
                for _ in range(5):
                    await trio.sleep(taken.LOOK_SECONDS)
                    await anna.hears_nothing()
                while (await bert.json())["type"] != "new_message":
                    pass
                assert (await anna.hear("message_status_update"))["status"] == "delivered"


class _Stuck:
    """A member whose kernel takes nothing, and how often it was looked at."""

    user = None
    backlog_bytes = 1

    def __init__(self) -> None:
        self.looks = 0

    @property
    def life(self) -> Any:
        self.looks += 1
        return SimpleNamespace(is_open=True)


async def test_of_the_many_who_do_not_read_only_some_are_looked_at_again_and_again() -> None:
    members = [_Stuck() for _ in range(1000)]
    hub: Any = SimpleNamespace(flushes=0)
    messages = TakenMessages(cast("Bus", None), hub, lambda _: None)
    for number in range(10):
        hub.on_said(members, Envelope("pub", event="new_message", id=str(number), excluded="0123456789ab-1"))
    hub.flushes = 1
    hub.on_flushed()
    at_first = [each.looks for each in members]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(messages.run)
        while at_first == [each.looks for each in members]:
            await trio.sleep(taken.LOOK_SECONDS)
        nursery.cancel_scope.cancel()
    again = [each for each, looks in zip(members, at_first, strict=True) if each.looks > looks]
    assert len(again) == taken.MOST_MEMBERS


async def test_what_was_not_stored_is_not_expected_to_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> Any:
        raise BusError("the bus is away")

    kept: list[SentMessages] = []
    start = SentMessages.start

    async def start_and_keep(messages: SentMessages) -> None:
        kept.append(messages)
        await start(messages)

    monkeypatch.setattr(SentMessages, "start", start_and_keep)
    monkeypatch.setattr(sent, "MOST_EXPECTED", 2)
    with trio.fail_after(20):
        async with running_engine() as engine, member(engine, "Anna") as anna:
            for text in "abcd":  # nobody else is there
                await anna.ask(message(text))
            assert len(kept[0]) == 2
            async with member(engine, "Bert"):
                await anna.say(message("hello"))
                assert [each["status"] for each in await statuses(anna, 2)] == ["sent", "delivered"]
                assert len(kept[0]) == 1
                monkeypatch.setattr(MemoryBus, "store", fail)
                assert (await anna.ask(message("hello")))["type"] == "error"
                assert len(kept[0]) == 1


def test_who_speaks_to_an_empty_room_costs_nobody_else_a_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "MOST_EXPECTED", sent.MOST_OF_ONE + 1)
    messages, said = SentMessages(cast("Bus", None)), list[Envelope]()
    quiet, loud = (cast("Session", _Talker(said)) for _ in range(2))
    for session, message_id in ((quiet, "q"), *((loud, f"l{number}") for number in range(1000))):
        with messages.expecting(session, message_id, Envelope("pub", channel="session:9")):
            pass
    assert len(messages) == sent.MOST_OF_ONE + 1
    messages._hear(b"q", lambda _: None)
    assert [envelope.id for envelope in said] == ["q"]


class _Talker:
    def __init__(self, said: list[Envelope]) -> None:
        self.push = said.append


class _Data:
    """What a message says, and whether anybody still has it."""


async def test_of_a_message_that_nobody_takes_only_the_receipt_is_kept() -> None:
    """A client could fill a worker's memory: as objects, 64 KiB of a message take over a megabyte."""
    messages, data = SentMessages(cast("Bus", None)), _Data()
    gone = ref(data)
    with messages.expecting(cast("Session", messages), "m", Envelope("pub", channel="session:9", data=data)):
        del data
    assert len(messages) == 1
    assert gone() is None


async def test_a_producer_that_names_a_connection_gets_nothing_said_to_it() -> None:
    with trio.fail_after(20):
        async with running_engine() as engine, member(engine, "Anna") as anna, member(engine, "Bert") as bert:
            for excluded in (anna.connection, "x.>", "0123456789ab-1"):
                forged = Envelope("pub", event="new_message", id="m", data={}, excluded=excluded)
                await engine.bus.store("session:9", encode_json(forged))
                await bert.hear("new_message")
            await anna.hear("new_message")
            await anna.hear("new_message")
            await anna.hears_nothing()
