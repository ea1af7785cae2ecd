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


_What = tuple[str | None, str | None]
"""What a revocation is of: a token id, or a user, or neither for all tokens."""


class Revocations:
    """`clock`: Unix seconds. However many there are, each token is compared with three at most."""

    def __init__(self, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._known: dict[_What, Revocation] = {}
        self._read_until = 0  # revision
        self._outages = 0

    def covers(self, identity: Identity) -> bool:
        """Whether an identity comes from a token that was taken back."""
        if identity.expires == float("inf") or not identity.known:
            return False  # it comes from no token
        known: list[_What] = [(identity.token_id, None), (None, identity.user), (None, None)]
        found = (self._known[what] for what in known if what in self._known)
        return any(each.covers(identity.user, identity.token_id, identity.issued) for each in found)

    def bus_is_back(self) -> None:
        """Read everything next: a store that has lost its last entries gives their revisions to new ones."""
        self._outages += 1
        self._read_until = 0

    async def read(self) -> bool:
        """Read what is new; whether there was anything. BusError."""
        outages = self._outages
        found = await self._bus.kv_entries(Bucket.REVOKED, after=self._read_until)
        for key, entry in found.items():
            self._take(key, entry)
        if outages == self._outages:
            self._read_until = max([self._read_until, *(entry.revision for entry in found.values())])
        now = self._clock()
        self._known = {what: revocation for what, revocation in self._known.items() if revocation.until > now}
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
        try:
            revocation = decode_revocation(entry.value)
        except ValueError as error:
            _log.error("the revocation %s cannot be read: %s", key, error)
        else:
            token_id = revocation.token_id
            self._known[(token_id, None) if token_id is not None else (None, revocation.user)] = revocation
