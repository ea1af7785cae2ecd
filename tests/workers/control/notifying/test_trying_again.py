"""What was given up is tried again at an operator's request, and is there until it is."""

from typing import Any

import pytest

from fanline.engine.bus.errors import BusError, StorageFullError
from fanline.engine.bus.memory.work import MemoryWork
from fanline.protocol.notifications.notification import NotificationLevel
from fanline.workers.control.notifying.sender import NotDeliveredError
from tests.workers.control.notifying.test_notifier import Running, anna


class Failing(MemoryWork):
    """Fails in one of its verbs."""

    failing = ""

    async def put(self, *said: Any, **options: Any) -> bool:
        if self.failing == "put":
            raise StorageFullError("no room")
        return await super().put(*said, **options)

    async def remove(self, stream: str, number: int) -> bool:
        if self.failing == "remove":
            raise BusError("NATS is away")
        return await super().remove(stream, number)


async def given_up() -> tuple[Running, Failing, int]:
    """A notification that was given up, and its number."""
    running = Running(work=(work := Failing()))
    await anna(running)
    running.outside.refusal = NotDeliveredError("no such mailbox", final=True)
    await running.ask(user="anna", level=NotificationLevel.WARNING)
    await running.decide()
    await running.dispatch()
    (kept,) = await running.dead.list(0, 10)
    return running, work, kept.number


async def test_one_that_finds_no_room_in_its_queue_stays_among_those_that_were_given_up() -> None:
    running, work, number = await given_up()
    work.failing = "put"
    with pytest.raises(StorageFullError):
        await running.dead.try_again(number)
    assert [kept.number for kept in await running.dead.list(0, 10)] == [number]

    work.failing, running.outside.refusal = "", None
    assert await running.dead.try_again(number)
    await running.dispatch()
    assert (running.outside.names(), await running.dead.list(0, 10)) == ([("anna", "anna@example.com")], [])


@pytest.mark.parametrize("fails_again", [False, True])
async def test_who_repeats_what_was_cut_short_sends_nothing_twice_and_loses_nothing(fails_again: bool) -> None:
    running, work, number = await given_up()
    work.failing = "remove"
    with pytest.raises(BusError):
        await running.dead.try_again(number)
    running.outside.refusal = NotDeliveredError("still none", final=True) if fails_again else None
    work.failing = ""
    await running.dispatch()
    assert await running.dead.try_again(number)
    await running.dispatch()

    assert running.outside.names() == ([] if fails_again else [("anna", "anna@example.com")])
    assert await running.reasons() == (["still none"] if fails_again else [])
