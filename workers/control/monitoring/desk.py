"""The desk of one control process: it looks at the cluster, and if it leads, speaks for it.

Each process watches its own server with a canary, and tells the others. The one that leads counts minutes, compares
rules, tells what happens to servers, and, while anybody watches, sends statistics.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.management.monitor import (
    FORGET_SECONDS,
    MONITOR,
    SUBJECT,
    Draining,
    MonitorEvent,
    ServerTried,
    Watched,
    decode_note,
    encode_note,
)
from fanline.protocol.management.questions import StatisticsQuestion
from fanline.workers.configuration.monitor import MonitorSettings
from fanline.workers.control.canary import CanaryError, fly
from fanline.workers.control.cluster import Cluster, Gathered, missing_workers
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.monitoring.alarms import Alarms
from fanline.workers.control.monitoring.counting import Counting, Window
from fanline.workers.control.monitoring.leadership import Leadership
from fanline.workers.control.monitoring.metrics import RoundTrips, counts_of, metrics_of, worst
from fanline.workers.control.monitoring.minutes import Minutes
from fanline.workers.control.monitoring.reporter import Reporter
from fanline.workers.control.monitoring.revoked import RevokedNotices
from fanline.workers.control.statistics import summed

_PATIENCE_SECONDS = 5.0  # for a canary
_FAULT_SECONDS = 3.0
_TOO_SOON = 0.05  # of the time between two, after one that was early by its clock
_NEWS_SECONDS = 1.0
_PER_SECOND = ("messages_sent", "messages_received", "errors", "connects", "disconnections", "abnormal_disconnections")
_log = logging.getLogger("fanline.monitor")


class DeskParts(NamedTuple):
    """What a desk works with."""

    bus: Bus
    cluster: Cluster
    members: Members
    leadership: Leadership
    minutes: Minutes
    alarms: Alarms
    reporter: Reporter
    settings: MonitorSettings
    url: str
    """The server's WebSocket endpoint."""
    workers: int
    """How many the server should have."""


class MonitorDesk:
    """Of one control process. `clock`: Unix seconds."""

    def __init__(self, parts: DeskParts, clock: Callable[[], float] = time.time) -> None:
        self._parts = parts
        self._clock = clock
        self.leadership = parts.leadership
        self._watched_until = -math.inf
        self._tried: dict[str, tuple[ServerTried, float]] = {}
        self._leaving: set[str] = set()  # servers that have been told to end
        self._counting, self._window = Counting(), Window()
        self._live = Counting()
        self._revoked = RevokedNotices(parts.bus, parts.reporter, clock)

    @property
    def is_watched(self) -> bool:
        """Whether there is a watcher, by what workers have reported lately."""
        return trio.current_time() < self._watched_until

    async def run(self) -> None:
        """For ever."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._parts.bus.answer(SUBJECT, self._hear)
        settings = self._parts.settings
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, self.leadership.run)
            nursery.start_soon(self._every, settings.canary, self._try_server)
            nursery.start_soon(self._every, settings.interval, self._send_statistics)
            nursery.start_soon(self._every, _NEWS_SECONDS, self._tell_news)
            nursery.start_soon(self._every, settings.sample, self._take_sample)

    # --- the tasks ------------------------------------------------------------------------------------------------

    async def _every(self, seconds: float, perform: Callable[[], Awaitable[None]]) -> NoReturn:
        """Do something at each multiple of a time: what is counted then begins and ends with a minute."""

        async def run() -> NoReturn:
            while True:
                rest = seconds - self._clock() % seconds
                await trio.sleep(rest if rest > seconds * _TOO_SOON else rest + seconds)
                with suppress(BusError):  # it is tried again
                    await perform()

        await self._keep(run)

    async def _keep(self, run: Callable[[], Awaitable[None]]) -> NoReturn:
        """A fault of our own in one task ends neither the others nor the process."""
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001  # our own fault
                _log.exception("a part of the monitor failed; it begins again after %g s", _FAULT_SECONDS)
            await trio.sleep(_FAULT_SECONDS)

    async def _take_sample(self) -> None:
        """Count what has happened since the last look, for the record of the minute and for the alarms."""
        if not self.leadership.leads:
            self._counting, self._window = Counting(), Window()
            return
        told, now = await self._gather(), self._clock()
        part = self._counting.take(told.bodies, len(self._missing(told)), self._health(now), now)
        if not part.seconds:
            return
        minute = int((now - part.seconds / 2) // 60)
        await self._parts.minutes.add(minute, part, self.leadership.check)
        values = metrics_of(self._window.add(part, now), part)
        await self._parts.alarms.look(values, now, is_whole=self._window.is_whole(now))

    async def _send_statistics(self) -> None:
        """While there is a watcher."""
        if not (self.leadership.leads and self.is_watched):
            self._live = Counting()
            return
        told, now = await self._gather(), self._clock()
        health = self._health(now)
        told = told._replace(missing=self._missing(told))
        part = self._live.take(told.bodies, len(told.missing), health, now)
        counts, seconds = counts_of(part), part.seconds or math.inf
        flushes = part.counters.get("flushes_timed", 0)
        data: dict[str, Any] = {
            **summed(told, ()).model_dump(mode="json", exclude={"per_worker", "hooks", "webhooks"}),
            "per_second": {name: round(counts.get(name, 0) / seconds, 3) for name in _PER_SECOND},
            "flush_seconds": counts.get("flush_microseconds", 0) / flushes / 1e6 if flushes else None,
            "health_round_trip": health.round_trip,
            "alarms": await self._parts.alarms.raised(),
        }
        message = Envelope(MessageType.PUB, event=MonitorEvent.STATS, data=data, time=unix_ms(), key=MonitorEvent.STATS)
        self.leadership.check()
        await self._parts.bus.publish(MONITOR, encode_json(message))

    async def _tell_news(self) -> None:
        """What happens to workers, and to users' tokens. Those who do not lead listen only, to know it if they do."""
        members = self._parts.members
        await self._parts.reporter.tell_changes(members.proven if members.known else None, leads=self.leadership.leads)
        await self._revoked.look(leads=self.leadership.leads)

    async def _try_server(self) -> None:
        """Send a canary, and report its round trip."""
        parts, seconds, message = self._parts, None, f"it has not come back within {_PATIENCE_SECONDS:g} seconds"
        with trio.move_on_after(_PATIENCE_SECONDS):
            try:
                seconds = await fly(parts.url, parts.cluster)
                message = ""
            except (CanaryError, ApiError) as error:
                message = str(error)
        server = parts.members.own.server
        note = ServerTried(server=server, seconds=seconds, message=message, workers=parts.workers)
        self._take_tried(note)
        parts.bus.tell(SUBJECT, encode_note(note))

    # --- what others tell -------------------------------------------------------------------------------------------

    def _hear(self, payload: bytes, _: Respond) -> None:
        match decode_note(payload):
            case Watched():
                self._watched_until = trio.current_time() + FORGET_SECONDS
            case ServerTried() as note:
                self._take_tried(note)
            case Draining() as note:
                self._leaving.add(note.server)
                self._parts.reporter.drains(note)

    def _take_tried(self, note: ServerTried) -> None:
        self._tried[note.server] = note, self._clock()
        if note.seconds is not None:
            self._leaving.discard(note.server)
        else:  # the alarm has the number of such servers only
            _log.warning("server %s is ill: %s", note.server, note.message)

    def _health(self, now: float) -> RoundTrips:
        """The latest results of the canaries, on all servers."""
        most = 2.5 * self._parts.settings.canary
        self._tried = {server: each for server, each in self._tried.items() if now - each[1] < most}
        return worst(note.seconds for note, _ in self._tried.values())

    def _missing(self, told: Gathered[WorkerStatistics]) -> list[str]:
        """The workers that should be there and have not answered: all that this server should have, and those of the
        servers of which any worker is live. A server that is told to end misses none.
        """
        members, most = self._parts.members, {note.server: note.workers for note, _ in self._tried.values()}
        live = {member.server for member in members.others.values()}
        slots = {server: count for server, count in most.items() if server in live} | {
            members.own.server: self._parts.workers
        }
        return missing_workers({server: slots[server] for server in slots.keys() - self._leaving}, told)

    async def _gather(self) -> Gathered[WorkerStatistics]:
        """The counts of all workers; BusError. No answer at all is a result, too."""
        try:
            return await self._parts.cluster.gather(StatisticsQuestion(fresh=False), WorkerStatistics)
        except ApiError:
            return Gathered([], 0, sorted(self._parts.cluster.other_workers()))
