"""Reports to the monitor about connections that come and go, and whether there is a watcher.

A worker with a watcher on the monitor's channel says so to all processes of the cluster, every second. As long as any
does, every worker reports what happens on it, twice a second. Up to LINES connections are reported one by one; beyond
that the rest is counted, so that a storm of clients costs the workers and the monitor no more than a shower.
"""

from contextlib import suppress
from typing import Any, NoReturn

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.channels.hub import Hub
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.hooks.events import ClientSession, Events
from fanline.engine.sessions.session import Session
from fanline.protocol.channels import pattern_of
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.hooks.events import (
    ClientEventData,
    ConnectionClosed,
    ConnectionOpened,
    UserConnected,
    UserDisconnected,
)
from fanline.protocol.management.monitor import (
    FORGET_SECONDS,
    MONITOR,
    SUBJECT,
    WATCH_SECONDS,
    Draining,
    MonitorEvent,
    Watched,
    decode_note,
    encode_note,
)

TICK_SECONDS = 0.5
LINES = 20
"""That a worker tells one by one in each tick."""
_EVENT_OF: dict[type[ClientEventData], MonitorEvent] = {
    ConnectionOpened: MonitorEvent.CONNECT,
    ConnectionClosed: MonitorEvent.DISCONNECT,
    UserConnected: MonitorEvent.USER_STATUS,
    UserDisconnected: MonitorEvent.USER_STATUS,
}
_STATUS: dict[type[ClientEventData], str] = {UserConnected: "online", UserDisconnected: "offline"}
_AT_TOP = ("user_id", "username", "status")
"""What of a user's status stands at the top level, too, as in rooms."""
_COUNTED = {MonitorEvent.CONNECT: "opened", MonitorEvent.DISCONNECT: "closed"}


class Feed:
    """Of one worker. `name`: what people call it."""

    def __init__(self, bus: Bus, hub: Hub, events: Events, name: str) -> None:
        self._bus = bus
        self._hub = hub
        self._events = events
        self._name = name
        self._watched_until = 0.0
        self._say_at = 0.0
        self._lines: list[Envelope] = []
        self._left_out: dict[str, int] = {}

    async def run(self) -> NoReturn:
        """Report what happens, forever, while there is a watcher."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(SUBJECT, self._hear)
        while True:
            await trio.sleep(TICK_SECONDS)
            self._look()
            await self._tell()

    def _hear(self, payload: bytes, _: Respond) -> None:
        if isinstance(decode_note(payload), Watched):
            self._see()

    def _see(self) -> None:
        self._watched_until = trio.current_time() + FORGET_SECONDS
        self._events.overhear = self._take

    def _look(self) -> None:
        """Find out whether there is a watcher."""
        now = trio.current_time()
        if self._hub.interest(MONITOR) or self._hub.interest(pattern_of(MONITOR)):
            self._see()
            if now >= self._say_at:
                self._say_at = now + WATCH_SECONDS - TICK_SECONDS / 2
                self._bus.tell(SUBJECT, encode_note(Watched()))
        elif now >= self._watched_until:
            self._events.overhear = None

    def _take(self, kind: type[ClientEventData], client: ClientSession, fields: dict[str, Any]) -> None:
        """Something has happened to a client."""
        event = _EVENT_OF.get(kind)
        if event is None:
            return
        if len(self._lines) >= LINES:
            if event in _COUNTED:
                self._left_out[_COUNTED[event]] = self._left_out.get(_COUNTED[event], 0) + 1
            return
        who = client.identity
        data = {
            "connection_id": client.connection,
            "user_id": who.user,
            "username": who.username,
            "worker": self._name,
            **({"status": _STATUS[kind]} if kind in _STATUS else {**fields, **_origin(client)}),
        }
        extra = {name: data[name] for name in _AT_TOP if data.get(name)} if kind in _STATUS else None
        self._lines.append(Envelope(MessageType.PUB, event=event, data=data, extra=extra, time=unix_ms()))

    async def _tell(self) -> None:
        """Reports while NATS is away are lost, as is everything that is live."""
        lines, self._lines = self._lines, []
        if self._left_out:
            counts = {"opened": 0, "closed": 0, **self._left_out, "worker": self._name}
            lines.append(Envelope(MessageType.PUB, event=MonitorEvent.CONNECTIONS, data=counts, time=unix_ms()))
            self._left_out = {}
        with suppress(BusError):
            for line in lines:
                await self._bus.publish(MONITOR, encode_json(line))


def say_draining(bus: Bus, members: Members) -> None:
    """This worker has been told to end, whether there is a watcher or not."""
    own = members.own
    bus.tell(SUBJECT, encode_note(Draining(id=members.id, server=own.server, host=own.host, name=own.name)))


def _origin(client: ClientSession) -> dict[str, str]:
    """Where a client connected from."""
    if not isinstance(client, Session):
        return {}
    origin = client.origin
    return {
        "route": client.route.pattern,
        "client_address": origin.address,
        "user_agent": origin.user_agent,
    }
