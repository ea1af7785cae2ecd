"""The stored items of task boards: where each belongs, and its latest values.

An item has two entries in the bucket: one by its id, which names its project and its assignee, and one among those of
its project. Of concurrent changes the last one wins.
"""

from typing import Any

import msgspec

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.nats.names import Bucket, name_key

KEPT_SECONDS = 90 * 86_400.0
"""After an item's last change."""
MAX_BYTES = 8192
"""Of what is remembered of one item."""
MAX_ITEMS = 1000
"""Of a project, as they are listed."""


class Item(msgspec.Struct, omit_defaults=True):
    """One item of a board."""

    project: str | None = None
    assignee: str | None = None
    fields: dict[str, Any] = {}
    """What was said of it, newest values first; empty if that is too large."""


class Items:
    """Those of the whole cluster. Each method: BusError."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def find(self, item_id: str) -> Item:
        """What is known of an item, which may be nothing."""
        entry = await self._bus.kv_get(Bucket.ITEMS, _by_id(item_id))
        found = read_entry(Item, entry.value, "an item of a board") if entry is not None and entry.value else None
        return found or Item()

    async def keep(self, item_id: str, item: Item, before: Item) -> None:
        """Remember an item as it is now. `before`: as it was found."""
        if len(msgspec.json.encode(item.fields)) > MAX_BYTES:
            item.fields = {}
        value = msgspec.json.encode(item)
        await self._bus.kv_put(Bucket.ITEMS, _by_id(item_id), value, KEPT_SECONDS)
        if item.project is not None:
            await self._bus.kv_put(Bucket.ITEMS, _by_project(item.project, item_id), value, KEPT_SECONDS)
        if before.project not in (None, item.project):
            await self._forget(_by_project(before.project or "", item_id))

    async def forget(self, item_id: str, item: Item) -> None:
        """An item was deleted."""
        await self._forget(_by_id(item_id))
        if item.project is not None:
            await self._forget(_by_project(item.project, item_id))

    async def of_project(self, project: str) -> list[dict[str, Any]]:
        """What is known of a project's items, those that have changed last at the end."""
        entries = await self._bus.kv_entries(Bucket.ITEMS, f"in.{name_key(project)}")
        newest = sorted(entries.values(), key=lambda entry: entry.revision)[-MAX_ITEMS:]
        found = [read_entry(Item, entry.value, "an item of a board") for entry in newest]
        return [item.fields for item in found if item is not None and item.fields]

    async def _forget(self, key: str) -> None:
        await self._bus.kv_put(Bucket.ITEMS, key, b"", 1)


def _by_id(item_id: str) -> str:
    return f"item.{name_key(item_id)}"


def _by_project(project: str, item_id: str) -> str:
    return f"in.{name_key(project)}.{name_key(item_id)}"
