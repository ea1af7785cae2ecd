"""All tasks of a worker together: what happens to them, and what is queued because of it."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.memory import MemoryBus
from fanline.engine.bus.stored import Epoch, Stored, StreamPosition
from fanline.engine.cluster.shares import SHARES, share_of
from fanline.engine.cluster.store_clock import StoreClock
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.monitor import share as share_module
from fanline.engine.tasks.monitor.lease import Lease
from fanline.engine.tasks.monitor.monitored_task import LINGER_SECONDS, STRANGER_SECONDS, MonitoredTask
from fanline.engine.tasks.monitor.roster import GRACE_SECONDS, TaskRoster
from fanline.engine.tasks.monitor.share import Share
from fanline.protocol.envelope import Envelope, from_producer
from fanline.protocol.errors import MessageError


class Held:
    """A roster that holds all shares, whose tasks have no records."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.refused: list[str] = []
        self.roster = TaskRoster(Namespaces(), read, self._refuse, StoreClock(), self.counters, Faults(self.counters))
        self.offset = 0
        for number in range(SHARES):
            share = self.roster.shares[number] = Share(number, Lease(MemoryBus(), "", ""))
            share.loaded = True

    def _refuse(self, channel: str, error: MessageError) -> None:
        self.refused.append(channel)

    def share(self, channel: str) -> Share:
        share = self.roster.shares[share_of(channel)]
        assert share is not None
        return share

    def task(self, channel: str) -> MonitoredTask | None:
        return self.share(channel).find(channel)

    def say(self, channel: str, event: str, **data: object) -> None:
        self.offset += 1
        payload = msgspec.json.encode({"v": 1, "e": event, "d": data})
        position = StreamPosition(self.offset, 0, f"2026-01-01T00:00:{int(trio.current_time()) % 60:02}Z")
        self.roster.take(self.share(channel), Epoch("e"), Stored(channel, payload, position))
        for task in list(self.roster.to_restore):
            del self.roster.to_restore[task]
            task.warm_without_record()
            self.roster.restored(self.share(task.channel), task)

    def save_all(self) -> None:
        """Everything that is queued is stored."""
        for task in [*self.roster.to_save, *self.roster.to_record]:
            share, running = self.share(task.channel), task.running and not task.withdrawn
            task.recorded(task.folded, (task.snapshot.state, task.snapshot.attempt), trio.current_time())
            self.roster.saved(share, task, task.offset, listed=running and not task.is_stranger)
            self.roster.settled(share, task)
        self.roster.to_save.clear()
        self.roster.to_record.clear()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            await trio.sleep(1)
            self.roster.sound = trio.current_time()
            for task in self.roster.agenda.due(trio.current_time()):
                self.roster.look(task, trio.current_time())


def read(stored: Stored) -> Envelope:
    return from_producer(stored.payload)


@pytest.fixture
def held() -> Held:
    return Held()


async def test_only_events_of_tasks_make_a_task(autojump_clock: MockClock, held: Held) -> None:
    held.say("task:a", "of_its_own")
    assert (held.task("task:a"), held.roster.to_restore) == (None, {})
    held.say("task:a", "task_started")
    task = held.task("task:a")
    assert task is not None
    assert (task.running, held.roster.running, task in held.roster.to_save) == (True, 1, True)


async def test_a_message_that_waits_for_its_task_is_folded_once_and_in_order(
    autojump_clock: MockClock, held: Held
) -> None:
    share = held.share("task:a")
    for offset, event in enumerate(("task_started", "task_paused", "task_resumed", "task_paused"), 1):
        payload = msgspec.json.encode({"v": 1, "e": event, "d": {}})
        stored = Stored("task:a", payload, StreamPosition(offset, offset - 1, "2026-01-01T00:00:00Z"))
        held.roster.take(share, Epoch("e"), stored)
        held.roster.take(share, Epoch("e"), stored)
    (task,) = held.roster.to_restore
    assert share.unsaved == {task: 1}
    task.warm_without_record()
    held.roster.restored(share, task)
    assert (task.folded, task.snapshot.state, held.refused) == (4, "paused", [])


async def test_what_does_not_fit_is_reported_unless_it_is_the_second_of_two_engine_events(
    autojump_clock: MockClock, held: Held
) -> None:
    held.say("task:a", "task_started", attempt=2)
    held.say("task:a", "task_progress", attempt=1)
    assert held.refused == ["task:a"]
    held.say("task:a", "task_heard")
    assert held.refused == ["task:a"]


async def test_an_event_that_is_stored_twice_counts_once_and_is_no_mistake(
    autojump_clock: MockClock, held: Held
) -> None:
    for _ in range(2):
        held.say("task:a", "task_output", lines=["x"], serial=["p", 1])
    task = held.task("task:a")
    assert task is not None
    assert (task.snapshot.lines, task.folded, held.refused) == (1, 2, [])
    assert task.output is not None
    assert [batch.lines for batch in task.output.newest(9)] == [["x"]]


async def test_the_next_holder_begins_before_the_oldest_change_that_is_not_stored(
    autojump_clock: MockClock, held: Held
) -> None:
    names = [name for name in map(str, range(200)) if share_of(f"task:{name}") == 3][:3]
    share = held.share(f"task:{names[0]}")
    for name in names:
        held.say(f"task:{name}", "task_started")
    held.say(f"task:{names[0]}", "task_paused")
    assert share.unsaved_since("task") == 1
    assert share.unsaved_since("other") is None
    held.save_all()
    assert share.unsaved_since("task") is None
    held.say(f"task:{names[1]}", "task_progress", percent=1)
    assert share.unsaved_since("task") is None
    held.say(f"task:{names[2]}", "task_completed")
    assert share.unsaved_since("task") == 6


async def test_an_ended_task_that_is_recorded_is_forgotten_and_the_others_stay(
    autojump_clock: MockClock, held: Held
) -> None:
    held.say("task:a", "task_created")
    held.say("task:a", "task_completed")
    held.say("task:b", "task_started")
    held.save_all()
    changes = held.roster.changes
    await held.pass_time(LINGER_SECONDS + 3)
    assert held.task("task:a") is None
    assert held.task("task:b") is not None
    assert held.roster.changes == changes  # the table does not show ended tasks


async def test_grace_is_for_tasks_of_now_and_for_those_that_come_during_it(
    autojump_clock: MockClock, held: Held
) -> None:
    begin = trio.current_time()
    held.say("task:a", "task_started", heartbeat=5)
    held.roster.grant_grace()
    await trio.sleep(GRACE_SECONDS / 2)
    held.say("task:b", "task_started", heartbeat=1)
    for silence, told in ((GRACE_SECONDS + 1, 0), (GRACE_SECONDS + 1.3, 1), (GRACE_SECONDS + 5.3, 2)):
        await trio.sleep(begin + silence - trio.current_time())
        held.roster.sound = trio.current_time()
        for task in held.roster.agenda.due(trio.current_time()):
            held.roster.look(task, trio.current_time())
        assert len(held.roster.to_tell) == told


async def test_nothing_is_told_of_a_share_of_which_not_everything_is_known(
    autojump_clock: MockClock, held: Held
) -> None:
    held.say("task:a", "task_started", heartbeat=1)
    held.share("task:a").behind["task"] = 0
    await held.pass_time(5)
    assert held.roster.to_tell == []
    held.share("task:a").behind.clear()
    await held.pass_time(1)
    assert len(held.roster.to_tell) == 1


async def test_a_share_that_is_given_up_leaves_nothing_behind(autojump_clock: MockClock, held: Held) -> None:
    held.say("task:a", "task_started", heartbeat=1)
    task, share = held.task("task:a"), held.share("task:a")
    held.roster.detach(share)
    await held.roster.clear(share)
    assert task is not None
    assert (task.gone, held.roster.running, held.roster.to_save, held.roster.to_restore) == (True, 0, {}, {})
    await held.pass_time(5)
    assert held.roster.to_tell == []
    held.roster.beat("task:a")


# --- strangers ----------------------------------------------------------------------------------------------------


async def test_invented_tasks_are_bounded_and_expire_and_that_is_logged_once(
    autojump_clock: MockClock, held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(share_module, "MAX_STRANGERS", 10)
    held.say("task:real", "task_started")
    for number in range(1000):
        held.say(f"task:{number}", "task_progress", percent=1)
        held.roster.beat(f"task:{number}")
    assert held.roster.running == 10 * SHARES + 1
    assert held.counters.tasks_refused == 1000 - 10 * SHARES
    assert caplog.text.count("that no event has announced") == SHARES
    held.say("task:also real", "task_created")
    assert held.task("task:also real") is None  # it is no channel
    held.say("task:real-too", "task_created")
    assert held.roster.running == 10 * SHARES + 2
    assert len(held.roster.to_save) == 2
    held.save_all()
    await held.pass_time(STRANGER_SECONDS + 3)
    assert held.roster.running == 2
    assert [share.strangers for share in held.roster.held()] == [0] * SHARES
    held.say("task:1001", "task_progress", percent=1)
    assert held.roster.running == 3


async def test_a_stranger_that_was_listed_is_withdrawn_and_listed_again_when_it_comes_back(
    autojump_clock: MockClock, held: Held
) -> None:
    held.say("task:a", "task_progress", percent=1)
    held.say("task:a", "task_progress", percent=2)
    await held.pass_time(32)
    task = held.task("task:a")
    assert task is not None
    assert task in held.roster.to_record
    held.save_all()
    held.roster.saved(held.share("task:a"), task, task.offset, listed=True)
    await held.pass_time(STRANGER_SECONDS)
    assert (task.withdrawn, task in held.roster.to_save) == (True, True)
    held.save_all()
    assert held.task("task:a") is None


async def test_what_waited_for_a_task_when_its_stream_was_recreated_hides_nothing_of_the_new_stream(
    autojump_clock: MockClock, held: Held
) -> None:
    share, roster = held.share("task:a"), held.roster

    def take(epoch: Epoch, offset: int, event: str) -> None:
        payload = msgspec.json.encode({"v": 1, "e": event, "d": {}})
        roster.take(share, epoch, Stored("task:a", payload, StreamPosition(offset, 0, "2026-01-01T00:00:00Z")))

    take(Epoch("old"), 500, "task_started")
    await roster.begin_epoch("task", Epoch("new"), recreated=True)
    take(Epoch("new"), 1, "task_paused")
    (task,) = roster.to_restore
    task.warm_without_record()
    roster.restored(share, task)
    assert (task.snapshot.state, roster.waiting) == ("paused", 0)
    take(Epoch("new"), 2, "task_completed")
    assert task.snapshot.state == "completed"
