"""The session store: what each session is subscribed to, so that another worker can take the session up again.

A session that changes is stored soon after, many changes at once, and then rests, however often it changes; one that
does not is stored again before it expires. Nothing waits for it: a lost write costs a client its session, never a
message, for the client has its offsets. And no late write overwrites another connection's:
each connection stores its session under an id that is its own.
"""

from collections.abc import Collection
from itertools import islice, takewhile
from typing import NamedTuple

import msgspec
import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import RESUME_WINDOW
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.nats.names import Bucket

STORE_AGAIN = RESUME_WINDOW / 2
"""Seconds after which an unchanged session is stored again: half of the resume window."""
REST = 1.0
"""Seconds for which a session that was stored is not stored again."""
MAX_CHANNELS = 2500
"""Channels of a session that is kept, and of all sessions that are stored in one pause: half a megabyte of names."""
PAUSE = 0.1
"""Seconds between two rounds of writing."""
_PER_PAUSE = 500  # sessions checked in a round, so that a storm of sessions does not crowd out their messages

_encode = msgspec.json.Encoder().encode


class StoredSession(msgspec.Struct):
    """The stored form of a session."""

    user: str | None
    channels: list[str]


class _Changed(NamedTuple):
    user: str | None
    channels: Collection[str]


class SessionStore:
    """One worker's: sessions put themselves in, `run` writes them to the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._changed: dict[str, _Changed] = {}
        self._resting: dict[str, float] = {}  # session -> when its rest ends, the next one first
        self._work = trio.Event()

    def put(self, session: str, user: str | None, channels: Collection[str]) -> None:
        """Store a session soon; `channels` is read then. One with more than MAX_CHANNELS is not kept."""
        self._changed[session] = _Changed(user, channels)
        self._work.set()

    async def run(self) -> None:
        """Write forever."""
        while True:
            await self._work.wait()
            await trio.sleep(PAUSE)
            self._write_some(trio.current_time())
            if not self._changed:
                self._work = trio.Event()

    def _write_some(self, now: float) -> None:
        self._wake(now)
        room = MAX_CHANNELS
        for session in list(islice(self._changed, _PER_PAUSE)):
            changed = self._changed.pop(session)
            count = len(changed.channels)
            kept = count <= MAX_CHANNELS
            if session in self._resting or (kept and count > room):
                self._changed[session] = changed  # to the end of the queue, where it is in no other session's way
                continue
            # Nothing is kept of a session that is too large: an older note of it would leave out channels.
            note = _encode(StoredSession(changed.user, list(changed.channels))) if kept else b""
            room -= count if kept else 0
            self._resting[session] = now + REST
            self._bus.kv_put_soon(Bucket.SESSIONS, session, note)

    def _wake(self, now: float) -> None:
        rested = takewhile(lambda session: self._resting[session] <= now, self._resting)
        for session in list(rested):
            del self._resting[session]

    async def find(self, session: str) -> StoredSession | None:
        """The stored session; None if there is none (any more). BusError."""
        entry = await self._bus.kv_get(Bucket.SESSIONS, session)
        return None if entry is None or not entry.value else read_entry(StoredSession, entry.value, "a session")
