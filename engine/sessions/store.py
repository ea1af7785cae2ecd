"""The session store: what each session is subscribed to, so that another worker can take the session up again.

A session that changes is stored soon after, many changes at once; one that does not is stored again before it expires.
Nothing waits for it: a lost write costs a client its session, never a message, for the client has its offsets.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import trio

from fanline.engine.bus.interface import RESUME_WINDOW, Bus
from fanline.protocol.nats.names import Bucket

STORE_AGAIN = RESUME_WINDOW / 2
"""Seconds after which an unchanged session is stored again: half of the resume window."""
_PAUSE = 0.1
_PER_PAUSE = 500  # sessions stored at a time, so that a storm of sessions does not crowd out their messages


class StoredSession(msgspec.Struct):
    """What is kept of a session."""

    user: str | None
    channels: list[str]


class _Changed(NamedTuple):
    user: str | None
    channels: Iterable[str]


class SessionStore:
    """One worker's: sessions put themselves in, `run` writes them to the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed: dict[str, _Changed] = {}
        self._work = trio.Event()

    def put(self, session: str, user: str | None, channels: Iterable[str]) -> None:
        """Store a session soon; `channels` is read then."""
        self._changed[session] = _Changed(user, channels)
        self._work.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._work.wait()
            await trio.sleep(_PAUSE)
            self._work = trio.Event()
            for session in list(self._changed)[:_PER_PAUSE]:
                user, channels = self._changed.pop(session)
                value = msgspec.json.encode(StoredSession(user, list(channels)))
                self._bus.kv_put_soon(Bucket.SESSIONS, session, value)
            if self._changed:
                self._work.set()

    async def find(self, session: str) -> StoredSession | None:
        """What is kept of a session; None if there is nothing (any more). BusError."""
        entry = await self._bus.kv_get(Bucket.SESSIONS, session)
        return None if entry is None else msgspec.json.decode(entry.value, type=StoredSession)
