"""The keys of the management API, in the bucket API_KEYS: the same for all servers of a cluster.

A key is read each time it is shown, so that one that was revoked is of no use; but not again within HELD_SECONDS while
the store passes on what changes (docs: ADR 0053). Nothing is held that was read while something may have been missed,
or soon after a change: the answer may come from a copy of the bucket that has not got it yet.
"""

import math
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec
import trio

from fanline.engine.bus.errors import BusError, ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.auth.api_keys import ID_CHARACTERS, ApiKey, ApiRight, ShownKey, digest_of, key_text
from fanline.protocol.nats.names import Bucket

HELD_SECONDS = 1.0
"""The longest that a key which was revoked may still be accepted, and only if the store has died before it passed the
change on.
"""


class _Held(NamedTuple):
    """A key that need not be read again until a moment, by Trio's clock."""

    key: ApiKey
    until: float


class ApiKeys:
    """All methods raise BusError, unless they say otherwise."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._held: dict[str, _Held] = {}  # of keys that exist, so there are no more than those
        self._disturbed = -math.inf  # when a change was last heard of, or an interruption; by Trio's clock

    async def watch(self) -> None:
        """Hear of changes from now on, or as soon as the bus is back. Without this, each use of a key reads it."""
        with suppress(BusError):
            await self._bus.kv_watch(Bucket.API_KEYS, self)

    def changed(self, key: str, value: bytes) -> None:
        """For the bus: something has become of a key."""
        self._held.pop(key, None)
        self._disturbed = trio.current_time()

    def interrupted(self) -> None:
        """For the bus: something may have become of any key."""
        self._held.clear()
        self._disturbed = trio.current_time()

    async def find(self, shown: ShownKey) -> ApiKey | None:
        """The key; None if there is none with this id and secret, or it has expired."""
        key = self._held_key(shown.id) or await self._read(shown.id)
        return key if key is not None and key.accepts(shown.secret, time.time()) else None

    def _held_key(self, key_id: str) -> ApiKey | None:
        held = self._held.get(key_id)
        is_current = held is not None and trio.current_time() < held.until and self._is_watched()
        return held.key if held is not None and is_current else None

    async def _read(self, key_id: str) -> ApiKey | None:
        begun, was_watched = trio.current_time(), self._is_watched()
        entry = await self._bus.kv_get(Bucket.API_KEYS, key_id)
        self._held.pop(key_id, None)
        if entry is None or not entry.value:
            return None
        key = read_entry(ApiKey, entry.value, f"the API key {key_id}")
        if key is not None and was_watched and begun >= self._disturbed + HELD_SECONDS:
            self._held[key_id] = _Held(key, begun + HELD_SECONDS)
        return key

    def _is_watched(self) -> bool:
        return self._bus.kv_is_watched(Bucket.API_KEYS)

    async def create(self, name: str, rights: Sequence[ApiRight], expires: float | None) -> tuple[str, str, ApiKey]:
        """Id, text and stored form of a new key; the text is kept nowhere. `expires`: Unix seconds."""
        secret = secrets.token_urlsafe(32)
        key = ApiKey(name=name, rights=tuple(rights), digest=digest_of(secret), created=time.time(), expires=expires)
        while True:
            key_id = secrets.token_hex(ID_CHARACTERS // 2)
            try:
                await self._bus.kv_update(Bucket.API_KEYS, key_id, msgspec.json.encode(key), 0)
            except ConflictError:
                continue
            return key_id, key_text(key_id, secret), key

    async def all(self) -> dict[str, ApiKey]:
        """Id -> key, in the order in which they were made."""
        entries = await self._bus.kv_entries(Bucket.API_KEYS)
        read = {each: read_entry(ApiKey, entry.value, f"the API key {each}") for each, entry in entries.items()}
        known = {each: key for each, key in read.items() if key is not None}
        return dict(sorted(known.items(), key=lambda item: item[1].created))

    async def revoke(self, key_id: str) -> bool:
        """Forget a key; False if there is none."""
        entry = await self._bus.kv_get(Bucket.API_KEYS, key_id)
        if entry is None or not entry.value:
            return False
        await self._bus.kv_update(Bucket.API_KEYS, key_id, b"", entry.revision)
        return True
