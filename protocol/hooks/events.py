"""Events: what happens on the server or in the application itself, on `fanline.event.NAME`.

docs/reference/hooks.md lists the events with the fields of their data; a test compares.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from fanline.protocol.nats.names import EVENT_PREFIX
from fanline.protocol.text import explain
from fanline.protocol.times import iso_time

EVENT_VERSION = 1
"""Of the body of an event. Fields may come; none goes or changes its meaning without another version."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RESERVED = frozenset(("audit",))  # its lines have a form of their own
EventText = Annotated[str, Meta(pattern=rf"^{_NAME.pattern}\Z", description="names of events like message_received")]


class EventName(StrEnum):
    """The server's own events. Applications publish events of other names."""

    CONNECTION_OPENED = "connection_opened"
    CONNECTION_CLOSED = "connection_closed"
    USER_CONNECTED = "user_connected"
    USER_DISCONNECTED = "user_disconnected"
    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"
    SESSION_JOINED = "session_joined"
    SESSION_LEFT = "session_left"
    MESSAGE_RECEIVED = "message_received"
    MESSAGE_SENT = "message_sent"
    TYPING_STATUS_CHANGED = "typing_status_changed"
    TASK_ENDED = "task_ended"


class EventNameError(ValueError):
    """A text that cannot be the name of an event; str() is one sentence."""


def check_event_name(name: str) -> str:
    """The name. EventNameError."""
    if _NAME.fullmatch(name) is None or name in _RESERVED:
        raise EventNameError(f"{name!r} is no name of an event: write a-z, 0-9 and _, as in order_paid")
    return name


def check_own_event(name: str) -> str:
    """The name of an event that an application may say. EventNameError."""
    if check_event_name(name) in set(EventName):
        raise EventNameError(f"only the server says {name}: choose another name for an event of your own")
    return name


def event_subject(name: str) -> str:
    """Where an event is said."""
    return f"{EVENT_PREFIX}{name}"


# --- the data of the server's events ------------------------------------------------------------------------------


class EventData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all of them."""

    EVENT: ClassVar[EventName]


class ClientEventData(EventData, frozen=True, kw_only=True):
    """Base of those about a client."""

    connection_id: str
    """The public id of its connection."""
    user_id: str | None = None
    """Absent for a client without a user name."""
    username: str | None = None


class ChannelEventData(ClientEventData, frozen=True, kw_only=True):
    """Base of those about a client on a channel."""

    channel: str


class ConnectionOpened(ClientEventData, frozen=True, kw_only=True):
    """A client has a WebSocket. Who it is may not be known yet."""

    EVENT = EventName.CONNECTION_OPENED
    dialect: str
    """`json`, `cbor` or `plain`."""


class ConnectionClosed(ClientEventData, frozen=True, kw_only=True):
    """It has no WebSocket any more, and with it no subscription."""

    EVENT = EventName.CONNECTION_CLOSED
    code: int
    """The close code; 1006 if the connection was lost."""
    reason: str


class UserConnected(ClientEventData, frozen=True, kw_only=True):
    """It is known which user a connection belongs to; said for each connection."""

    EVENT = EventName.USER_CONNECTED


class UserDisconnected(ClientEventData, frozen=True, kw_only=True):
    """A connection of a user has ended."""

    EVENT = EventName.USER_DISCONNECTED


class ChannelSubscribed(ChannelEventData, frozen=True, kw_only=True):
    """A client is subscribed to a channel."""

    EVENT = EventName.SUBSCRIBED


class ChannelUnsubscribed(ChannelEventData, frozen=True, kw_only=True):
    """A subscription has ended before its connection did."""

    EVENT = EventName.UNSUBSCRIBED


class SessionJoined(ChannelEventData, frozen=True, kw_only=True):
    """A plain client has come to a room or a session."""

    EVENT = EventName.SESSION_JOINED


class SessionLeft(ChannelEventData, frozen=True, kw_only=True):
    """A plain client has left it."""

    EVENT = EventName.SESSION_LEFT


class MessageReceived(ClientEventData, frozen=True, kw_only=True):
    """A client publishes a message, and may; it is not stored or sent yet."""

    EVENT = EventName.MESSAGE_RECEIVED
    channel: str | None = None
    """Absent for an item of a task board, whose channels the server finds."""
    event: str | None = None
    """The event of the message, as in `new_message`."""
    data: Any = None


class MessageSent(ChannelEventData, frozen=True, kw_only=True):
    """The message is stored, or handed to NATS, and on its way to all who are subscribed."""

    EVENT = EventName.MESSAGE_SENT
    event: str | None = None
    message_id: str | None = None
    offset: int | None = None
    """Where it is stored in a durable channel."""


class TypingStatusChanged(ChannelEventData, frozen=True, kw_only=True):
    """A client has published an event `typing`."""

    EVENT = EventName.TYPING_STATUS_CHANGED
    is_typing: bool


class TaskEnded(EventData, frozen=True, kw_only=True):
    """An attempt of a task has ended."""

    EVENT = EventName.TASK_ENDED
    task_id: str
    channel: str
    state: str
    """`completed`, `failed`, `cancelled` or `timed_out`."""
    attempt: int
    result: Any = None
    error: str | None = None
    by: str | None = None
    """Who cancelled it."""


EVENT_DATA: dict[EventName, type[EventData]] = {
    kind.EVENT: kind
    for kind in (
        *(ConnectionOpened, ConnectionClosed, UserConnected, UserDisconnected, ChannelSubscribed, ChannelUnsubscribed),
        *(SessionJoined, SessionLeft, MessageReceived, MessageSent, TypingStatusChanged, TaskEnded),
    )
}


# --- the body -----------------------------------------------------------------------------------------------------


class _EventHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every event says of itself."""

    version: int = EVENT_VERSION
    id: str
    """The same when the event comes again."""
    type: str
    """Its name."""
    timestamp: str
    """When it was said, ISO 8601 in UTC."""
    source: str
    """Who said it: a worker, as in `worker-0`, or `handlers`."""


class ServerEvent(_EventHead, frozen=True, kw_only=True):
    """One event: its name in `type`, what it says in `data`, a map that depends on the name (docs/reference/hooks.md).

    `id` is the same if the event comes again. `timestamp` is ISO 8601 in UTC; `source` is the publisher, as in
    `worker-0`; `version` that of this form, 1.
    """

    data: dict[str, Any] = {}


class _Written(_EventHead, frozen=True, kw_only=True):
    """The same with data in any form."""

    data: EventData | dict[str, Any]


_events = msgspec.json.Decoder(ServerEvent)


class BadEventError(Exception):
    """The data is not an event; str() is one sentence."""


def encode_event(name: str, event_id: str, unix_ms: int, source: str, data: EventData | dict[str, Any]) -> bytes:
    """The body. TypeError, ValueError for data that JSON cannot hold."""
    timestamp = iso_time(unix_ms) or ""
    return msgspec.json.encode(_Written(id=event_id, type=name, timestamp=timestamp, source=source, data=data))


def decode_event(payload: bytes) -> ServerEvent:
    """Raises BadEventError."""
    try:
        return _events.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadEventError(f"it cannot be read: {explain(error)}") from None


class _Batch(msgspec.Struct, frozen=True):
    """The body of a webhook's request."""

    events: list[ServerEvent]


_batches = msgspec.json.Decoder(_Batch)


def decode_batch(payload: bytes) -> list[ServerEvent]:
    """The events of a webhook's request. Raises BadEventError."""
    try:
        return _batches.decode(payload).events
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadEventError(f"it cannot be read: {explain(error)}") from None
