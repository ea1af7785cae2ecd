"""What has been revoked, as one worker knows it: tokens, and users' places on channels.

The bucket is asked for new entries twice a second, rather than listened to: an answer proves that nothing was missed,
even after an outage, and that is what matters for a revocation.
"""

import logging
import time
from collections.abc import Callable
from typing import NoReturn

import trio

from fanline.engine.access.identity import Identity
from fanline.engine.access.revoked.removals import Removals
from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import KvEntry
from fanline.engine.clock import unix_ms_of
from fanline.protocol.auth.revocation import REMOVAL_SECONDS, REMOVALS, Revocation, decode_removal, decode_revocation
from fanline.protocol.nats.names import Bucket

PAUSE_SECONDS = 0.5
_log = logging.getLogger("fanline.access")


_What = tuple[str | None, str | None]
"""The target of a revocation: a token id, or a user, or neither for all tokens."""


class Revocations:
    """`clock`: Unix seconds. However many there are, each token is compared with three at most."""

    def __init__(self, bus: Bus, removals: Removals | None = None, clock: Callable[[], float] = time.time) -> None:
        self._bus = bus
        self._clock = clock
        self._removals = removals or Removals()
        self._known: dict[_What, Revocation] = {}
        self._taken: dict[str, float] = {}  # key of a removal -> when it is gone from the bucket
        self._read_until = 0  # revision
        self._outages = 0

    def covers(self, identity: Identity) -> bool:
        """Whether an identity comes from a token that was taken back."""
        if not identity.known or (identity.issued is None and identity.expires == float("inf")):
            return False  # it comes from no token, and from no authenticator
        known: list[_What] = [(identity.token_id, None), (None, identity.user), (None, None)]
        found = (self._known[what] for what in known if what in self._known)
        return any(each.covers(identity.user, identity.token_id, identity.issued) for each in found)

    def bus_is_back(self) -> None:
        """Read everything next: a store that has lost its last entries gives their revisions to new ones."""
        self._outages += 1
        self._read_until = 0

    async def read(self) -> bool:
        """Read new entries; whether there were any. BusError."""
        outages = self._outages
        found = await self._bus.kv_entries(Bucket.REVOKED, after=self._read_until)
        for key, entry in found.items():
            self._take(key, entry)
        if outages == self._outages:
            self._read_until = max([self._read_until, *(entry.revision for entry in found.values())])
        now = self._clock()
        self._known = {what: revocation for what, revocation in self._known.items() if revocation.until > now}
        self._taken = {key: until for key, until in self._taken.items() if until > now}
        return bool(found)

    async def run(self, on_new: Callable[[], None]) -> NoReturn:
        """Read forever, and call `on_new` whenever there was a new entry. What is known stays while the bus is
        unreachable.
        """
        while True:
            await trio.sleep(PAUSE_SECONDS)
            try:
                if await self.read():
                    on_new()
            except BusError as error:
                _log.debug("revocations cannot be read now: %s", error)

    def _take(self, key: str, entry: KvEntry) -> None:
        try:
            if key.startswith(f"{REMOVALS}."):
                self._remove(key, entry)
            else:
                revocation = decode_revocation(entry.value)
                token_id = revocation.token_id
                self._known[(token_id, None) if token_id is not None else (None, revocation.user)] = revocation
        except ValueError as error:
            _log.error("the revocation %s cannot be read: %s", key, error)

    def _remove(self, key: str, entry: KvEntry) -> None:
        """Once, and soon or not at all: after an outage everything is read again, and the user may have come back
        meanwhile.
        """
        if key not in self._taken and self._clock() - unix_ms_of(entry.time) / 1000 < REMOVAL_SECONDS:
            removal = decode_removal(entry.value)
            self._taken[key] = self._clock() + REMOVAL_SECONDS
            self._removals.add(removal)
