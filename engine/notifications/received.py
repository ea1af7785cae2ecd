"""A user's notifications, as the inbox holds them, and which of them the user has read.

The messages themselves are in the streams of `user:NAME` and, for notifications to all users, of `system:all`. What
was read is an entry of a bucket: everything that was stored up to a time, and ids of newer ones. Times are those of the
store: a producer may have another clock, or say no time at all.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import trio

from fanline.engine.bus.errors import BusError, ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored import Stored
from fanline.engine.clock import unix_ms, unix_ms_of
from fanline.engine.namespaces import Namespaces
from fanline.protocol.channels import check_channel
from fanline.protocol.compat.escapes import inbox_name
from fanline.protocol.dialects.plain.notices import NOTIFICATION, notice_of
from fanline.protocol.envelope import Envelope, MessageType, encode_json, from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import Bucket, name_key
from fanline.protocol.notifications.notification import EVERYBODY
from fanline.protocol.times import iso_time

EVERYBODYS = "system:all"
"""The channel of notifications to all users."""
READ_EVENT = "notification_read"
"""The event by which a user's connections learn what was read on another one."""
_TRIES = 10
_READERS = 4  # inboxes that are read at a time


class _WasRead(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is stored of a user."""

    until: int = 0
    """Unix ms: everything that was stored up to then."""
    ids: list[str] = []

    def covers(self, found: "_Found") -> bool:
        return found.stored <= self.until or found.id in self.ids


class _Found(NamedTuple):
    """A notification in a stream."""

    stored: int
    """When, in Unix ms."""
    id: str
    notice: dict[str, Any]


class NotificationsPage(NamedTuple):
    """A page of a user's notifications."""

    notifications: list[dict[str, Any]]
    """Newest first; the fields of the message, and `read`."""
    unread: int
    """Of all."""
    more: bool


class ReceivedNotifications:
    """Of all users. The methods raise BusError, and MessageError for a name that makes no channel."""

    def __init__(self, bus: Bus, namespaces: Namespaces) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._reading = trio.CapacityLimiter(_READERS)

    async def page(
        self, user: str, limit: int, before: str | None = None, *, unread_only: bool = False
    ) -> NotificationsPage:
        """Newest first. `before`: the id of the last one on the previous page."""
        found, was_read = await self._found(user), await self._was_read(user)
        unread = sum(not was_read.covers(each) for each in found)
        older = found if before is None else _behind(found, before)
        wanted = [each for each in older if not (unread_only and was_read.covers(each))]
        page = [each.notice | {"read": was_read.covers(each)} for each in wanted[:limit]]
        return NotificationsPage(page, unread, len(wanted) > limit)

    async def mark_read(self, user: str, ids: Iterable[str] | None) -> int:
        """Note that these were read; None: all of them. Returns how many are unread now. The user's connections are
        notified.
        """
        wanted = None if ids is None else set(ids)
        for left in reversed(range(_TRIES)):
            found = await self._found(user)
            entry = await self._bus.kv_get(Bucket.NOTIFICATIONS_READ, name_key(user))
            was_read = _decoded(b"" if entry is None else entry.value)
            now_read = _marked(was_read, found, wanted)
            revision = 0 if entry is None else entry.revision
            try:
                value = msgspec.json.encode(now_read)
                await self._bus.kv_update(Bucket.NOTIFICATIONS_READ, name_key(user), value, revision)
            except ConflictError:
                if not left:
                    raise
            else:
                break
        unread = sum(not now_read.covers(each) for each in found)
        await self._tell(user, sorted(wanted) if wanted is not None else None, unread)
        return unread

    async def has(self, channel: str, notification: str) -> bool:
        """Whether a notification with this id is stored on a channel."""
        return any(each.id == notification for each in await self._in_channel(channel))

    async def _found(self, user: str) -> list[_Found]:
        """Newest first."""
        own, common = await self._in_channel(inbox_of(user)), await self._in_channel(EVERYBODYS)
        return sorted((*reversed(own), *reversed(common)), key=lambda each: each.stored, reverse=True)

    async def _in_channel(self, channel: str) -> list[_Found]:
        """Oldest first."""
        if not self._namespaces.of(channel).durable:
            return []
        found, start, more = list[_Found](), 1, 1
        async with self._reading:
            while more:
                page = await self._bus.read(channel, start)
                more = page.more if page.messages else 0
                for stored in page.messages:
                    start = stored.position.offset + 1
                    if NOTIFICATION.encode() in stored.payload and (each := _found(stored)) is not None:
                        found.append(each)
        return found

    async def _was_read(self, user: str) -> _WasRead:
        entry = await self._bus.kv_get(Bucket.NOTIFICATIONS_READ, name_key(user))
        return _decoded(b"" if entry is None else entry.value)

    async def _tell(self, user: str, ids: list[str] | None, unread: int) -> None:
        data: dict[str, Any] = {"ids": ids, "all": ids is None, "unread": unread}
        envelope = Envelope(MessageType.PUB, event=READ_EVENT, data=data, time=unix_ms())
        await self._bus.publish_live(inbox_of(user), encode_json(envelope))


def inbox_of(user: str) -> str:
    """The channel of a user's notifications, of one who is called `*` as well. MessageError if the name makes none."""
    return check_channel(inbox_name(user))


def channel_of(wanted: str) -> str:
    """The channel of notifications for a user, or for all users. MessageError."""
    return EVERYBODYS if wanted == EVERYBODY else inbox_of(wanted)


def _found(stored: Stored) -> _Found | None:
    """The notification in a stored message; None if it is something else."""
    try:
        message = from_producer(stored.payload)
    except MessageError:
        return None
    data = message.value
    if message.event != NOTIFICATION or message.id is None or not isinstance(data, dict):
        return None
    stored_ms = unix_ms_of(stored.position.time)
    when = iso_time(stored_ms if message.time is None else message.time)
    own = {"id": message.id, "timestamp": when}  # by which it is named, whatever the producer has said
    return _Found(stored_ms, message.id, notice_of(data, message.id, when) | own)


def _behind(found: list[_Found], last: str) -> list[_Found]:
    """What comes behind one in a list; nothing if it is no longer there."""
    place = next((number for number, each in enumerate(found) if each.id == last), len(found))
    return found[place + 1 :]


def _marked(was_read: _WasRead, found: list[_Found], ids: set[str] | None) -> _WasRead:
    """What was read with these, too. Only ids of what is still there are kept."""
    if ids is None:
        return _WasRead(until=max([was_read.until, *(each.stored for each in found)]))
    there = [each.id for each in found if each.stored > was_read.until]
    return _WasRead(until=was_read.until, ids=[each for each in there if each in ids or each in was_read.ids])


def _decoded(value: bytes) -> _WasRead:
    try:
        return msgspec.json.decode(value, type=_WasRead) if value else _WasRead()
    except msgspec.MsgspecError:
        raise BusError("the record of read notifications was written by a newer version of the server") from None
