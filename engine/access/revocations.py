"""The tokens that have been taken back, as one worker knows them.

The bucket is asked for what is new twice a second, rather than listened to: an answer says that nothing was missed,
also after an outage, and that is what a revocation is about.
"""

import logging
import time
from collections.abc import Callable
from typing import NoReturn

import trio

from fanline.engine.access.identity import Identity
from fanline.engine.bus.interface import Bus, BusError, KvEntry
from fanline.protocol.auth.revocation import Revocation, decode_revocation
from fanline.protocol.nats.names import Bucket

PAUSE_SECONDS = 0.5
_log = logging.getLogger("fanline.access")


class Revocations:
    """`clock`: Unix seconds."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._known: dict[str, Revocation] = {}
        self._read_until = 0  # revision

    def covers(self, identity: Identity) -> bool:
        """Whether an identity comes from a token that was taken back."""
        if identity.expires == float("inf") or not identity.known:
            return False  # it comes from no token
        for revocation in self._known.values():
            if revocation.covers(identity.user, identity.token_id, identity.issued):
                return True
        return False

    async def read(self) -> bool:
        """Read what is new; whether there was anything. BusError."""
        found = await self._bus.kv_entries(Bucket.REVOKED, after=self._read_until)
        for key, entry in found.items():
            self._take(key, entry)
        now = self._clock()
        self._known = {key: revocation for key, revocation in self._known.items() if revocation.until > now}
        return bool(found)

    async def run(self, on_new: Callable[[], None]) -> NoReturn:
        """Read for ever, and call `on_new` whenever there was something. What is known stays while the bus is away."""
        while True:
            await trio.sleep(PAUSE_SECONDS)
            try:
                if await self.read():
                    on_new()
            except BusError as error:
                _log.debug("revocations cannot be read now: %s", error)

    def _take(self, key: str, entry: KvEntry) -> None:
        self._read_until = max(self._read_until, entry.revision)
        try:
            self._known[key] = decode_revocation(entry.value)
        except ValueError as error:
            _log.error("the revocation %s cannot be read: %s", key, error)
