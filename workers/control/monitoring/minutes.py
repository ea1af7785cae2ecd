"""The records of minutes, in the bucket MINUTES."""

from collections.abc import Callable, Sequence

import msgspec

from fanline.engine.bus.errors import ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import MULTI_LAST
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.management.minutes import MinuteRecord, merged, minute_key
from fanline.protocol.nats.names import Bucket

_TRIES = 3


class Minutes:
    """All methods raise BusError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def add(self, minute: int, part: MinuteRecord, check: Callable[[], None]) -> None:
        """Add a part of a minute to its record, which another process may have started. `check`: raises BusError if
        another process leads.
        """
        for _ in range(_TRIES):
            entry = await self._bus.kv_get(Bucket.MINUTES, minute_key(minute))
            before = None if entry is None else _read(minute, entry.value)
            whole = part if before is None else merged((before, part))
            try:
                revision = 0 if entry is None else entry.revision
                check()
                await self._bus.kv_update(Bucket.MINUTES, minute_key(minute), msgspec.json.encode(whole), revision)
            except ConflictError:
                continue
            return

    async def read(self, minutes: Sequence[int]) -> dict[int, MinuteRecord]:
        """Minute -> record, without those of which there is none."""
        found: dict[int, MinuteRecord] = {}
        for start in range(0, len(minutes), MULTI_LAST):
            some = minutes[start : start + MULTI_LAST]
            entries = await self._bus.kv_get_many(Bucket.MINUTES, [minute_key(each) for each in some])
            read = {each: _read(each, entries[minute_key(each)].value) for each in some if minute_key(each) in entries}
            found |= {minute: record for minute, record in read.items() if record is not None}
        return found


def _read(minute: int, value: bytes) -> MinuteRecord | None:
    return read_entry(MinuteRecord, value, f"the record of minute {minute}")
