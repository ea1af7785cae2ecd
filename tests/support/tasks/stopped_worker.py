"""A worker's task monitor, or the acknowledgement of an inbox, in a process that stops itself right before one write.

`python -m tests.support.tasks.stopped_worker URL WRITE`, with a key of WRITES. Prints what became of the write after it
was continued, as one line: the name of the exception, or `written`. The monitor goes on then.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import trio

from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.bus.stored import Epoch
from fanline.engine.channels.inbox import move_cursor
from fanline.engine.channels.messages import MessageReader
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.tasks.monitor.monitor import TaskMonitor
from fanline.protocol.nats.names import Bucket
from fanline.protocol.nats.options import NatsOptions

INBOX = "user:ann"


class Write(NamedTuple):
    """One call of the bus: the method, and whether these arguments are those of the write."""

    method: str
    is_it: Callable[..., bool]


WRITES: dict[str, Write] = {
    "record": Write("kv_put", lambda bucket, _, value, *rest: bucket is Bucket.TASKS and b"paused" in value),
    "entry": Write("kv_put", lambda bucket, _, value, *rest: bucket is Bucket.RUNNING and b"paused" in value),
    "table": Write("store", lambda channel, payload, *rest: channel == "tasks:running" and b"paused" in payload),
    "timer event": Write("store", lambda channel, payload, *rest: b"task_stalled" in payload),
    "lease": Write("kv_update", lambda bucket, key, *rest: bucket is Bucket.LEASES and rest[-1] > 100),
    "cursor": Write("kv_update", lambda bucket, *rest: bucket is Bucket.CURSORS),
}


def stop_before(bus: NatsBus, write: Write) -> None:
    """Stop this process when the write is asked for the first time."""
    perform = getattr(bus, write.method)

    async def perform_or_stop(*args: Any, **named: Any) -> Any:
        if not write.is_it(*args):
            return await perform(*args, **named)
        setattr(bus, write.method, perform)
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            done = await perform(*args, **named)
        except Exception as error:
            print(type(error).__name__, flush=True)
            raise
        print("written", flush=True)
        return done

    setattr(bus, write.method, perform_or_stop)


async def monitor_tasks(bus: NatsBus) -> None:
    """What a worker does for tasks, for ever."""
    namespaces, counters = Namespaces(), Counters()
    faults = Faults(counters)
    reader = MessageReader(namespaces, counters, faults, unix_ms)
    members = Members(bus)
    monitor = TaskMonitor(bus, members, namespaces, reader.read_stored, reader.refuse, counters, faults)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(members.run)
        nursery.start_soon(monitor.run)


async def main(url: str, write: str) -> None:
    async with open_nats_bus(NatsOptions(servers=(url,)), "stopped") as bus:
        stop_before(bus, WRITES[write])
        if write == "cursor":
            await move_cursor(bus, INBOX, 5, Epoch("e"))
        else:
            await monitor_tasks(bus)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
