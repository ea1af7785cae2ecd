"""The table of running tasks: the newest message of the channel `tasks:running`, for viewers of all tasks.

Each worker makes the rows of its own tasks. The holder of share 0 publishes the table; the others leave their rows for
it in the bucket RUNNING, beside the entries of the tasks.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Any

import msgspec
import trio

from fanline.engine.bus.errors import TooLargeError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored_entry import read_entry
from fanline.engine.cluster.shares import SHARES
from fanline.engine.tasks.monitor.monitored_task import MonitoredTask
from fanline.engine.tasks.monitor.roster import TaskRoster
from fanline.protocol.nats.names import Bucket
from fanline.protocol.tasks.states import TaskState

TABLE_CHANNEL = "tasks:running"
TABLE_EVENT = "task_table"
MAX_ROWS = 500
ROWS_PREFIX = "rows"
"""Of the keys in RUNNING under which workers leave their rows; no share has this name."""
PAUSE_SECONDS = 1.0
"""At least, between two tables."""
ASKED_SECONDS = 0.2
"""The same while viewers come, who are not to wait for it."""
_ALL_SHARES = frozenset(range(SHARES))
_REFRESH_SECONDS = 3600.0  # after this even an unchanged table is stored again, before it is too old to be kept


class TableRow(msgspec.Struct, omit_defaults=True):
    """What viewers get of one task."""

    id: str
    ns: str
    state: TaskState
    attempt: int
    title: str | None = None
    stage: str | None = None
    percent: int | float | None = None
    eta: float | None = None
    updated: int | None = None
    started: int | None = None


class Rows(msgspec.Struct):
    """The newest tasks of one worker, the last changed one first, and how many there are."""

    total: int = 0
    shares: list[int] = []
    """Those of which these are all tasks."""
    tasks: list[tuple[float, TableRow]] = []
    """When it changed, Unix ms of the store; the row that viewers get."""


def rows_of(roster: TaskRoster, count: int = MAX_ROWS) -> Rows:
    """The rows of the tasks that a worker monitors."""
    by_share = (reversed(share.running.values()) for share in roster.held())
    newest = heapq.merge(*by_share, key=lambda task: task.changed_ms, reverse=True)
    rows = Rows(roster.running, _ready(roster))
    for task in islice(newest, count):
        with roster.edge(task, "it has no row in the table"):
            rows.tasks.append((task.changed_ms, _row(task)))
    return rows


def _ready(roster: TaskRoster) -> list[int]:
    return [share.number for share in roster.held() if share.ready]


def _row(task: MonitoredTask) -> TableRow:
    of = task.snapshot
    namespace, _, task_id = task.channel.partition(":")
    known = (of.title, of.stage, of.percent, of.eta, of.updated, of.started)
    return TableRow(task_id, namespace, of.state, of.attempt, *known)


def table(parts: Iterable[Rows], count: int = MAX_ROWS) -> dict[str, Any]:
    """The data of the message: a row per task, the last changed one first; `total` includes tasks without a row."""
    parts = list(parts)
    newest = heapq.merge(*(rows.tasks for rows in parts), key=lambda row: row[0], reverse=True)
    return {"tasks": [row for _, row in islice(newest, count)], "total": sum(rows.total for rows in parts)}


class TablePublisher:
    """Publishes the table when it has changed, or leaves this worker's rows for its publisher.

    `publish` stores the table's data; BusError, TooLargeError. `live`: the ids of the live workers, `me` among them.
    """

    def __init__(
        self,
        bus: Bus,
        me: str,
        live: Callable[[], Iterable[str]],
        publish: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        self._bus = bus
        self._me = me
        self._live = live
        self._publish = publish
        self._published = -math.inf
        self._shown: object = None  # what the table, or the rows that were left, are made of
        self._others: dict[str, Rows] = {}
        self._readable: set[str] = set()  # the other live workers at the last reading
        self._read_until = 0  # revision in the bucket
        self._updating = trio.Lock()

    def bus_is_back(self) -> None:
        """After an outage: the store may be an older copy of itself, or another one, whose revisions begin again. What
        was left or published there may be lost.
        """
        self._read_until = 0
        self._shown = None if self._shown is None else ()

    async def update(self, roster: TaskRoster) -> None:
        """Publish, or leave, what is due; at most once in PAUSE_SECONDS. BusError."""
        if trio.current_time() - self._published >= PAUSE_SECONDS:
            async with self._updating:
                await self._update(roster)

    async def update_now(self, roster: TaskRoster) -> bool:
        """The same for a viewer who comes, once in ASKED_SECONDS. Returns whether the table that is published has the
        tasks of all shares. BusError.
        """
        async with self._updating:
            await trio.sleep(max(0.0, self._published + ASKED_SECONDS - trio.current_time()))
            await self._update(roster)
        parts = [_ready(roster), *(rows.shares for rows in self._others.values())]
        return {number for part in parts for number in part} >= _ALL_SHARES

    async def _update(self, roster: TaskRoster) -> None:
        now, publishes, ready = trio.current_time(), roster.shares[0] is not None, _ready(roster)
        if publishes:
            await self._read_others()
        shown = (
            roster.changes,
            ready,
            publishes,
            self._read_until,
            frozenset(self._live()) if publishes else None,
        )
        if shown == self._shown and now - self._published < _REFRESH_SECONDS:
            return
        if not publishes and self._shown is None and not ready and not roster.running:
            return  # there is nothing to be left, and there was nothing
        self._published, self._shown = now, ()  # if it fails it is due again after the pause
        await (self._publish_table(roster) if publishes else self._leave_rows(roster))
        self._shown = shown

    async def _read_others(self) -> None:
        live = set(self._live()) - {self._me}
        self._others = {worker: rows for worker, rows in self._others.items() if worker in live}
        if live - self._readable:
            self._read_until = 0  # what one of them had left before it was live was passed over
        self._readable = live
        if not live:
            return
        found = await self._bus.kv_entries(Bucket.RUNNING, ROWS_PREFIX, self._read_until)
        for key, entry in found.items():
            worker = key.partition(".")[2]
            self._read_until = max(self._read_until, entry.revision)
            if worker in live:
                self._others[worker] = read_entry(Rows, entry.value, "the rows of another worker") or Rows()

    async def _publish_table(self, roster: TaskRoster) -> None:
        parts = [rows_of(roster), *self._others.values()]
        await _what_fits(lambda count: self._publish(table(parts, count)))

    async def _leave_rows(self, roster: TaskRoster) -> None:
        """Also without a task: the rows say for which shares that is all."""
        self._others.clear()
        self._read_until = 0

        async def leave(count: int) -> None:
            value = msgspec.json.encode(rows_of(roster, count))
            await self._bus.kv_put(Bucket.RUNNING, f"{ROWS_PREFIX}.{self._me}", value, 2 * _REFRESH_SECONDS)

        await _what_fits(leave)


async def _what_fits(store: Callable[[int], Awaitable[None]]) -> None:
    """Store as many rows as the bus takes."""
    count = MAX_ROWS
    while True:
        try:
            return await store(count)
        except TooLargeError:
            count //= 2
