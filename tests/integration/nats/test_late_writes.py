"""A worker that is stopped between its decision and its write, and goes on when another one has written something
newer, overwrites nothing: every write says what it replaces. Real processes and a real nats-server.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.opening import open_nats_bus
from fanline.engine.bus.stored import Epoch
from fanline.engine.channels.inbox import move_cursor, read_cursor
from fanline.engine.tasks.monitor.lease import value_of
from fanline.engine.tasks.monitor.stored.entry import entry_key
from fanline.protocol.nats.names import Bucket
from fanline.protocol.nats.options import NatsOptions
from fanline.workers.supervision.child import Child
from tests.support.nats.server import running_nats
from tests.support.paths import ROOT
from tests.support.servers.serve import wait_until
from tests.support.tasks.stopped_worker import INBOX, monitor_tasks

CHANNEL = "task:a"


class Stopped:
    """The process that stops itself; `bus` is another worker's."""

    def __init__(self, child: Child, stdout: trio.lowlevel.FdStream, bus: NatsBus) -> None:
        self.child = child
        self.bus = bus
        self._stdout = stdout
        self._said = 0

    async def until_stopped(self) -> None:
        def is_stopped() -> bool:
            return Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        await wait_until(is_stopped)

    async def say(self, event: str, **data: object) -> None:
        self._said += 1
        payload = {"v": 1, "e": f"task_{event}", "d": data}
        await self.bus.store(CHANNEL, msgspec.json.encode(payload), f"{CHANNEL}/{self._said}")

    async def go_on(self) -> str:
        """Continue it; what became of its write."""
        os.kill(self.child.pid, signal.SIGCONT)
        return (await self._stdout.receive_some(100)).decode().strip()


@asynccontextmanager
async def stopped_before(write: str) -> AsyncIterator[Stopped]:
    with trio.fail_after(90):
        async with running_nats() as nats, open_nats_bus(NatsOptions(servers=(nats.url,)), "other") as bus:
            read_end, write_end = os.pipe()
            command = (sys.executable, "-P", "-m", "tests.support.tasks.stopped_worker", nats.url, write)
            child = Child(command, environ={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=write_end)
            os.close(write_end)
            try:
                async with trio.lowlevel.FdStream(read_end) as stdout:
                    yield Stopped(child, stdout, bus)
            finally:
                child.kill()
                with trio.CancelScope(shield=True):
                    await child.wait()
                child.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():
        await trio.sleep(0.05)


async def value_of_key(bus: NatsBus, bucket: Bucket, key: str) -> bytes:
    entry = await bus.kv_get(bucket, key)
    return b"" if entry is None else entry.value


async def newest(bus: NatsBus, channel: str) -> bytes:
    offset = (await bus.last_offsets([channel])).get(channel)
    return b"" if offset is None else (await bus.read(channel, offset)).messages[0].payload


EPOCH = Epoch("e")
LOOK: dict[str, Callable[[NatsBus], Awaitable[bytes]]] = {
    "record": lambda bus: value_of_key(bus, Bucket.TASKS, "task.a"),
    "entry": lambda bus: value_of_key(bus, Bucket.RUNNING, entry_key(CHANNEL)),
    "table": lambda bus: newest(bus, "tasks:running"),
}


@pytest.mark.parametrize("write", LOOK)
async def test_what_is_known_of_a_task_is_not_overwritten_by_a_worker_that_was_stopped(write: str) -> None:
    async with stopped_before(write) as other, trio.open_nursery() as nursery:
        bus, look = other.bus, LOOK[write]
        await other.say("started", title="T")
        await until(lambda: _has(look(bus), b"running"))
        await other.say("paused")
        await other.until_stopped()
        nursery.start_soon(monitor_tasks, bus)
        await until(lambda: _has(look(bus), b"paused"))
        await other.say("resumed", message="newer")
        await other.say("progress", percent=50)
        await other.say("confirmation_required", ask="q", text="newest")
        await until(lambda: _has(look(bus), b"waiting_input"))
        assert await other.go_on() == "ConflictError"
        await trio.sleep(2)
        assert b"waiting_input" in await look(bus)
        nursery.cancel_scope.cancel()


async def test_a_stall_that_was_decided_before_the_producer_spoke_is_not_stored() -> None:
    async with stopped_before("timer event") as other:
        await other.say("started", heartbeat=1)
        await other.until_stopped()
        await other.say("progress", percent=50)
        assert await other.go_on() == "ConflictError"
        stored = [stored.payload for stored in (await other.bus.read(CHANNEL, 1)).messages]
        assert [b"task_stalled" in payload for payload in stored[:2]] == [False, False]


async def test_a_lease_that_another_worker_has_taken_meanwhile_is_not_renewed() -> None:
    async with stopped_before("lease") as other, trio.open_nursery() as nursery:
        await other.until_stopped()
        keys = [f"tasks.{share}" for share in range(16)]

        async def holders() -> set[str]:
            found = await other.bus.kv_get_many(Bucket.LEASES, keys)
            return {value_of(entry).worker for entry in found.values()}

        before = await holders()
        nursery.start_soon(monitor_tasks, other.bus)
        await until(lambda: _all_moved(holders(), before))
        assert await other.go_on() == "ConflictError"
        nursery.cancel_scope.cancel()


async def test_an_older_acknowledgement_does_not_move_an_inbox_back() -> None:
    async with stopped_before("cursor") as other:
        await other.until_stopped()
        await move_cursor(other.bus, INBOX, 9, EPOCH)
        assert await other.go_on() == "ConflictError"
        await other.child.wait()
        assert other.child.ending == "exit code 0"
        assert await read_cursor(other.bus, INBOX, EPOCH) == 9


async def _has(found: Awaitable[bytes], text: bytes) -> bool:
    return text in await found


async def _all_moved(found: Awaitable[set[str]], before: set[str]) -> bool:
    return not await found & before
