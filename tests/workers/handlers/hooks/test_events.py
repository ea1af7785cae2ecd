"""Events reach the functions that hear them, none of which waits for another one, and leave from any thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fanline.protocol.envelope import decode_json
from fanline.protocol.hooks.events import ServerEvent, decode_event, encode_event
from fanline.protocol.hooks.hooks import HookError, HookRefusal, Hooks
from fanline.protocol.nats.names import MESSAGE_ID
from fanline.workers.handlers.functions import Function
from fanline.workers.handlers.hooks.hooked import PLACES, Hooked
from fanline.workers.handlers.hooks.listener import listen
from fanline.workers.handlers.hooks.saying import Saying
from tests.workers.handlers.hooks.test_desk import Nowhere


class Message:
    def __init__(self, subject: str, data: bytes) -> None:
        self.subject = subject
        self.data = data


class Nats:
    """As much of a client of nats-py as they need."""

    max_payload = 10_000

    def __init__(self) -> None:
        self.subscriptions: list[tuple[str, str, Callable[[Any], Awaitable[None]]]] = []
        self.sent: list[tuple[str, bytes, dict[str, str]]] = []

    async def subscribe(
        self, subject: str, queue: str, cb: Callable[[Any], Awaitable[None]], pending_msgs_limit: int
    ) -> None:
        assert pending_msgs_limit > 0
        self.subscriptions.append((subject, queue, cb))

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.sent.append((subject, payload, headers))


def event(name: str, number: int = 0) -> Message:
    return Message(f"fanline.event.{name}", encode_event(name, str(number), 0, "worker-0", {"number": number}))


def make(name: str, function: Function) -> Hooked:
    return Hooked(name, function, 0.5)


async def listening(**functions: Function) -> Nats:
    client: Any = Nats()
    hooks = Hooks(Nowhere())
    for name, function in functions.items():
        hooks.on(name.partition("__")[0], function)
    await listen(client, ("app:setup",), hooks, make)
    assert isinstance(client, Nats)
    return client


def test_each_function_has_a_queue_of_its_own_which_servers_with_the_same_setups_share() -> None:
    async def main() -> None:
        clients = [await listening(paid=print, paid__too=repr, sold=print) for _ in range(2)]
        ours, theirs = ([each[:2] for each in client.subscriptions] for client in clients)
        assert ours == theirs
        assert [subject for subject, _ in ours] == ["fanline.event.paid", "fanline.event.paid", "fanline.event.sold"]
        assert len(set(ours)) == 3

    asyncio.run(main())


def test_a_function_hears_the_event_and_its_fault_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    heard = list[ServerEvent]()
    done = asyncio.Event()

    async def fail(said: ServerEvent) -> None:
        heard.append(said)
        if said.data["number"] == 0:
            raise ValueError("no database")
        if said.data["number"] == 1:
            raise HookRefusal("no")
        done.set()

    async def main() -> None:
        client = await listening(paid=fail)
        take = client.subscriptions[0][2]
        await take(Message("fanline.event.paid", b"nonsense"))
        for number in range(3):
            await take(event("paid", number))
        await asyncio.wait_for(done.wait(), 5)

    asyncio.run(main())
    assert [each.data["number"] for each in heard] == [0, 1, 2]
    assert "no database" in caplog.text
    assert "is not an event" in caplog.text


def test_a_slow_function_holds_up_its_own_queue_alone() -> None:
    heard = list[int]()

    async def sleep(_: ServerEvent) -> None:
        await asyncio.sleep(60)

    async def hear(said: ServerEvent) -> None:
        heard.append(said.data["number"])

    async def main() -> None:
        client = await listening(paid=sleep, paid__too=hear)
        slow, quick = (each[2] for each in client.subscriptions)
        for number in range(PLACES):
            await slow(event("paid", number))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow(event("paid")), 0.1)
        for number in range(100):
            await asyncio.wait_for(quick(event("paid", number)), 5)
        while len(heard) < 100:
            await asyncio.sleep(0)
        await asyncio.wait_for(slow(event("paid")), 5)  # what is late is given up

    asyncio.run(main())
    assert heard == list(range(100))


def test_calls_of_a_coroutine_function_overlap_and_begin_in_the_order_of_the_events() -> None:
    begun, ended = list[int](), list[int]()

    async def nap(said: ServerEvent) -> None:
        number = said.data["number"]
        begun.append(number)
        await asyncio.sleep(0.001 * (number % PLACES == 0))  # the next ones overtake it
        ended.append(number)

    async def main() -> None:
        client = await listening(paid=nap)
        ((_, _, take),) = client.subscriptions
        for number in range(10 * PLACES):
            await take(event("paid", number))
        while len(ended) < 10 * PLACES:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert begun == list(range(10 * PLACES))
    assert ended != begun


def test_what_is_said_in_a_thread_leaves_by_the_loop() -> None:
    async def main() -> list[tuple[str, bytes, dict[str, str]]]:
        client: Any = Nats()
        hooks = Hooks(Saying(client))

        def say() -> None:
            hooks.emit("item_sold", {"item": "tea"})
            hooks.emit("day_over")
            hooks.publish("doc:1", [1, 2], event="edited")

        thread = threading.Thread(target=say)
        thread.start()
        while len(client.sent) < 3:
            await asyncio.sleep(0)
        thread.join()
        sent: list[tuple[str, bytes, dict[str, str]]] = client.sent
        return sent

    first, second, third = asyncio.run(main())
    said = decode_event(first[1])
    assert (first[0], said.type, said.source, said.data) == (
        *("fanline.event.item_sold", "item_sold", "handlers"),
        {"item": "tea"},
    )
    assert first[2] == {MESSAGE_ID: said.id}
    assert decode_event(second[1]).data == {}
    envelope = decode_json(third[1])
    assert (third[0], envelope.event, envelope.value) == ("fanline.pub.doc.1", "edited", [1, 2])
    assert envelope.id is not None
    assert third[2][MESSAGE_ID].endswith(envelope.id)


def _endless() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["self"] = found
    return found


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (lambda hooks: hooks.emit("task_ended", {}), "only the server says task_ended"),
        (lambda hooks: hooks.emit("Item Sold", {}), "is no name of an event"),
        (lambda hooks: hooks.emit("item_sold", [1]), "is a list; expected a dict"),
        (lambda hooks: hooks.emit("item_sold", {"item": object()}), "cannot be published"),
        (lambda hooks: hooks.emit("item_sold", {"item": "x" * 10_000}), "with headers for fanline.event.item_sold"),
        (lambda hooks: hooks.emit("item_sold", {"item": "x" * 9_850}), "with headers for fanline.event.item_sold"),
        (lambda hooks: hooks.publish("doc:1", "x" * 9_910), "with headers for fanline.pub.doc.1"),
        (lambda hooks: hooks.publish("doc", 1), "cannot be published"),
        (lambda hooks: hooks.publish("doc:>", 1), "cannot be published"),
        (lambda hooks: hooks.publish("doc:1", 1, event="a\nb"), "cannot be published"),
        (lambda hooks: hooks.publish("doc:1", object()), "cannot be published"),
        (lambda hooks: hooks.publish("doc:1", {"wei": 10**21}), "integer outside 64 bits"),
        (lambda hooks: hooks.publish("doc:1", _endless()), "cannot be published"),
        (lambda hooks: hooks.emit("item_sold", _endless()), "cannot be published"),
    ],
)
def test_what_cannot_be_said_is_refused_where_it_is_said(say: Callable[[Hooks], None], words: str) -> None:
    async def main() -> None:
        client: Any = Nats()
        with pytest.raises(HookError, match=words):
            say(Hooks(Saying(client)))
        await asyncio.sleep(0)
        assert client.sent == []

    asyncio.run(main())
