"""The entry of a running task in the bucket RUNNING: all that timers and the table need, so that a worker that takes
over a share has its timers back with one read.
"""

import msgspec
from msgspec.structs import replace

from fanline.engine.bus.stored import Epoch
from fanline.engine.bus.stored_entry import read_entry
from fanline.engine.cluster.shares import share_of
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask, new_task
from fanline.engine.tasks.timers import Deadlines
from fanline.protocol.nats.names import channel_key, channel_of_key
from fanline.protocol.tasks.snapshot import Snapshot


class RunningEntry(msgspec.Struct, omit_defaults=True):
    """What is stored; `changed` is when the store got the newest message, Unix ms."""

    epoch: str
    offset: int
    changed: float
    snapshot: Snapshot
    deadlines: Deadlines = Deadlines()
    announced: bool = True


def entry_key(channel: str) -> str:
    """The entry's key: the share comes first, so that the entries of one share can be read alone."""
    return f"{share_of(channel)}.{channel_key(channel)}"


def channel_of_entry(key: str) -> str:
    """The channel of an entry's key."""
    return channel_of_key(key.partition(".")[2])


def encode_entry(task: MonitoredTask) -> bytes:
    """The entry of a task as it is."""
    snapshot = task.snapshot
    ask = None if snapshot.ask is None else replace(snapshot.ask, text=None, options=None, value=None)
    small = replace(snapshot, message=None, result=None, error=None, ask=ask)
    entry = RunningEntry(task.epoch.name, task.offset, task.changed_ms, small, task.deadlines, task.announced)
    return msgspec.json.encode(entry)


def task_of_entry(key: str, value: bytes, revision: int, epoch: Epoch, now: float) -> MonitoredTask | None:
    """The task of an entry; `epoch`: that of its stream now. None if the stream went back to an older copy
    behind it, or, logged, if the entry cannot be read.
    """
    entry = read_entry(RunningEntry, value, f"the entry {key} of a running task")
    if entry is None:
        return None
    if epoch.went_back_from(entry.epoch, entry.offset):
        return None  # it is met again when its stream is read
    task = new_task(channel_of_entry(key), epoch, now)
    offset = entry.offset if epoch.covers(entry.epoch, entry.offset) else 0
    task.begin_cold(entry.snapshot, offset, entry.deadlines)
    task.changed_ms, task.entry_revision, task.announced = entry.changed, revision, entry.announced
    return task
