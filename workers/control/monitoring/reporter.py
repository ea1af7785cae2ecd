"""Tells what happens to servers: `system_service_disruption`, and a notification of what nobody has wanted."""

import time
from collections.abc import Callable, Mapping

import trio

from fanline.engine.cluster.members import Member
from fanline.protocol.management.monitor import AlarmKind, Draining
from fanline.protocol.notifications.notification import Notification, NotificationLevel
from fanline.workers.control.monitoring.announcer import SystemAnnouncer, text_of
from fanline.workers.control.monitoring.news import ServerChange, WorkerChange, WorkerNews

_TOGETHER_SECONDS = 10.0  # in which the workers of one server are told to end
_ONCE_SECONDS = 600.0  # in which the same change of the same worker is one piece of news
_NOTE_SECONDS = 15.0  # for which what has happened is remembered until it is known who leads
_Fields = dict[str, object]


class Reporter:
    """Of one control process. `clock`: Unix seconds."""

    def __init__(self, announcer: SystemAnnouncer, clock: Callable[[], float] = time.time) -> None:
        self._announcer = announcer
        self._clock = clock
        self._news = WorkerNews()
        self._draining: dict[str, tuple[Draining, float, bool]] = {}
        """Server -> its first worker that was told to end, when, and whether that was said."""
        self._outage: tuple[float, float] | None = None
        self._changes: list[tuple[WorkerChange, float]] = []
        """Not said by this process, and when they were seen."""

    def drains(self, note: Draining) -> None:
        """A worker has been told to end."""
        self._news.drains(note.id)
        known, now = self._draining.get(note.server), self._clock()
        if known is None or now - known[1] > _TOGETHER_SECONDS:
            self._draining[note.server] = note, now, False

    def bus_is_back(self, sound_until: float) -> None:
        """After an outage of NATS. `sound_until`: Unix seconds up to which nothing was lost."""
        self._outage = sound_until, self._clock()

    def notify(self, notification: Notification) -> None:
        """Ask for a notification."""
        self._announcer.notify(notification)

    async def tell_changes(self, live: Mapping[str, Member] | None, *, leads: bool) -> None:
        """Say what has happened since the last call, or shortly before, if this process leads. BusError.

        `live`: the live workers; None: that is not known now.
        """
        now = self._clock()
        self._changes = [each for each in self._changes if now - each[1] <= _NOTE_SECONDS]
        self._changes += [(change, now) for change in (() if live is None else self._news.look(live, now))]
        for server, (note, since, said) in list(self._draining.items()):
            if not said and leads:
                await self._say_draining(note, since)
            self._draining[server] = note, since, said or leads
            if self._clock() - since > 2 * _TOGETHER_SECONDS:
                del self._draining[server]
        while leads and self._changes:
            await self._say_change(*self._changes[0])
            del self._changes[0]
        await self._tell_outage(leads=leads)

    async def _say_draining(self, note: Draining, since: float) -> None:
        text = f"{note.name} of {note.server} has been told to end, and sends its clients away"
        fields: _Fields = {"server": note.server, "host": note.host, "worker": note.name}
        await self._say(ServerChange.DRAINING, text, fields, f"draining/{note.server}/{round(since / 60)}")

    async def _say_change(self, change: WorkerChange, seen: float) -> None:
        member = change.member
        fields: _Fields = {
            "server": member.server,
            "host": member.host,
            "worker": member.name,
            "pid": member.pid,
            "expected": change.expected,
        }
        # A worker is started once, but may hang and return several times, which all processes see at about one time.
        occasion = 0 if change.event is ServerChange.WORKER_RESTARTED else seen // _ONCE_SECONDS
        name = f"{change.event}/{member.server}/{member.name}/{member.pid}/{member.started}/{occasion}"
        notified = None if change.expected else NotificationLevel.ERROR
        await self._say(change.event, _sentence(change), fields, name, notified)

    async def _tell_outage(self, *, leads: bool) -> None:
        if self._outage is None:
            return
        begun, ended = self._outage
        if leads:
            text = f"NATS was away for {ended - begun:.1f} s"
            fields: _Fields = {"from": text_of(begun), "until": text_of(ended), "seconds": round(ended - begun, 3)}
            name = f"nats/{round(ended / 60)}"
            await self._say(ServerChange.NATS_LOST, text, fields, name, NotificationLevel.ERROR)
        if leads or self._clock() - ended > _NOTE_SECONDS:
            self._outage = None

    async def _say(
        self, event: ServerChange, text: str, fields: _Fields, name: str, notified: NotificationLevel | None = None
    ) -> None:
        data = {"event": event, **fields, "time": text_of(self._clock()), "message": text}
        await self._announcer.say(AlarmKind.DISRUPTION, data, name)
        if notified is not None:
            self._announcer.notify_admins("Service disruption", data, notified, name)
        await trio.lowlevel.checkpoint()


def _sentence(change: WorkerChange) -> str:
    member = change.member
    who = f"{member.name} of {member.server} (pid {member.pid})"
    match change.event:
        case ServerChange.WORKER_DIED:
            return f"{who} has died or hangs: it gives no sign of life"
        case ServerChange.WORKER_RETURNED:
            return f"{who} answers again: it was not restarted, but gave no sign of life for some seconds"
        case _:
            why = f"the one before it died ({member.died})" if member.died else "the one before it was told to end"
            return f"{who} was started: {why}"
