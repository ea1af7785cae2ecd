"""A snapshot is shared by the viewers that join a task together, and by nobody else."""

import itertools

import pytest

from fanline.engine.bus.stored import Epoch, StreamPosition
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.joining.snapshots import SharedSnapshots
from fanline.engine.namespaces import Namespace
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.envelope import Envelope


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The present Unix ms, which a test may change."""
    moment = [1_000_000]
    monkeypatch.setattr("fanline.engine.channels.joining.snapshots.unix_ms", lambda: moment[0])
    return moment


def task(number: int = 1, epoch: str = "e") -> DurableChannel:
    channel = DurableChannel(f"task:{number}", Namespace(durable=True, tasks=True), 10, TaskFold(f"task:{number}"))
    channel.open(Epoch(epoch), 0)
    say(channel, "task_started", 1)
    return channel


def say(channel: DurableChannel, event: str, offset: int) -> None:
    channel.receive(Envelope("pub", event=event, time=offset), StreamPosition(offset, channel.last, ""))


def test_viewers_that_join_together_get_the_same_snapshot(now: list[int]) -> None:
    channel, shared = task(), SharedSnapshots()
    snapshot = shared.of(channel, 200)
    assert snapshot.value["snapshot"]["state"] == "running"
    now[0] += 999
    assert shared.of(channel, 200) is snapshot


def test_a_viewer_that_comes_after_a_message_or_wants_other_lines_gets_its_own() -> None:
    channel, shared = task(), SharedSnapshots()
    before = shared.of(channel, 200)
    assert shared.of(channel, 20) is not before
    say(channel, "task_paused", 2)
    after = shared.of(channel, 200)
    assert (before.value["snapshot"]["state"], after.value["snapshot"]["state"]) == ("running", "paused")
    assert (before.offset, after.offset) == (1, 2)


def test_a_snapshot_is_of_its_task_and_epoch_alone_and_not_older_than_a_second(now: list[int]) -> None:
    shared = SharedSnapshots()
    channels = [task(1), task(2), task(1, "another")]
    snapshots = [shared.of(channel, 200) for channel in channels]
    now[0] += 1000
    snapshots += [shared.of(channel, 200) for channel in channels]
    assert all(one is not other for one, other in itertools.combinations(snapshots, 2))


def test_only_the_newest_snapshots_are_kept() -> None:
    shared = SharedSnapshots()
    channels = [task(number) for number in range(17)]
    snapshots = [shared.of(channel, 200) for channel in channels]
    assert shared.of(channels[1], 200) is snapshots[1]
    assert shared.of(channels[0], 200) is not snapshots[0]
