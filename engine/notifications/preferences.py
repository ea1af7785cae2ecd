"""The store of users' preferences: a bucket with one entry for each user."""

import msgspec

from fanline.engine.bus.errors import ConflictError
from fanline.engine.bus.interface import Bus
from fanline.protocol.nats.names import Bucket, name_key
from fanline.protocol.notifications.preferences import BadPreferencesError, Preferences, decode_preferences

_TRIES = 10


class PreferenceStore:
    """Of all users of a cluster. The methods raise BusError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def find(self, user: str) -> Preferences | None:
        """A user's preferences; None if there are none."""
        entry = await self._bus.kv_get(Bucket.PREFERENCES, name_key(user))
        return None if entry is None else _read(entry.value)

    async def set(self, preferences: Preferences) -> None:
        """Replace a user's preferences."""
        await self._write(preferences.user, msgspec.json.encode(preferences))

    async def remove(self, user: str) -> None:
        """Remove a user's preferences."""
        await self._write(user, b"")

    async def users(self) -> list[Preferences]:
        """The preferences of all users who have any."""
        entries = await self._bus.kv_entries(Bucket.PREFERENCES)
        return [found for entry in entries.values() if (found := _read(entry.value)) is not None]

    async def _write(self, user: str, value: bytes) -> None:
        key = name_key(user)
        for left in reversed(range(_TRIES)):
            entry = await self._bus.kv_get(Bucket.PREFERENCES, key)
            try:
                await self._bus.kv_update(Bucket.PREFERENCES, key, value, 0 if entry is None else entry.revision)
            except ConflictError:
                if not left:
                    raise
            else:
                return


def _read(value: bytes) -> Preferences | None:
    """None for an entry that was removed, or that a newer version has written."""
    try:
        return decode_preferences(value) if value else None
    except BadPreferencesError:
        return None
