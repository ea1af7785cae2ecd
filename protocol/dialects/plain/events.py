"""The plain dialect: what the server says by itself, as flat JSON objects."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.dialects.plain.names import name_of
from fanline.protocol.dialects.plain.notices import NOTIFICATION, notice_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import error_of
from fanline.protocol.messages.control_data import read
from fanline.protocol.messages.notices import Expiring, Welcome
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState
from fanline.protocol.times import iso_time

encode_object = msgspec.json.Encoder().encode
"""A message, which is a JSON object."""
DOCUMENT_EDIT = "document_edit"
"""The event whose offset is its place in the order of all edits of a document."""
_OLD_STATES: dict[str, str] = {TaskState.RUNNING: "PROCESSING"}
_OWN_KEYS = frozenset(("type", "event", "channel", "data", "timestamp", "message_id"))
"""What an extra attribute never replaces."""
_OLD_NAMES = {"task_progress": "task_progress_update"}  # the names that these clients know
_ID_KEYS = {"task": "task_id", "project": "project_id", "session": "session_id", "doc": "document_id"}
_PRIORITY, _TTL = 5, 3600  # as shown where a message has none


def published(envelope: Envelope) -> dict[str, Any]:
    event, channel = envelope.event or "message", name_of(envelope.channel) or ""
    kind = {"type": "event", "event": event} if event in SERVER_TYPES else {"type": _OLD_NAMES.get(event, event)}
    shown = kind | {
        "channel": channel,
        "data": _object(envelope.data),
        "timestamp": iso_time(envelope.time),
        "message_id": envelope.id or _message_name(channel, envelope),
        "priority": _PRIORITY if envelope.priority is None else envelope.priority,
        "ttl": _TTL if envelope.ttl is None else envelope.ttl,
    }
    if envelope.sender is not None:
        shown["user_id"] = envelope.sender
    namespace, _, local = channel.partition(":")
    if namespace in _ID_KEYS:
        shown[_ID_KEYS[namespace]] = local
    if event == DOCUMENT_EDIT and envelope.offset is not None:
        shown["sequence"] = envelope.offset
    if envelope.extra is not None:
        shown |= {key: value for key, value in envelope.extra.items() if key not in _OWN_KEYS}
    if event == NOTIFICATION:
        notice = notice_of(_object(envelope.value), shown["message_id"], shown["timestamp"])
        shown |= {"notification": notice, "data": notice}
    return shown


def _message_name(channel: str, envelope: Envelope) -> str:
    """The id of a message to which its producer has given none: its place, or else a digest of it."""
    if envelope.offset is not None:
        return f"{channel}#{envelope.offset}"
    return hashlib.blake2s(encode_object((channel, envelope.time, envelope.event, envelope.data))).hexdigest()[:24]


def _object(data: Any) -> Any:
    """A message's data; these clients know it as an object alone."""
    if data is None:
        return {}
    if not isinstance(data, msgspec.Raw):
        return data if isinstance(data, dict) else {"value": data}
    first = memoryview(data)[0]  # of a JSON text without blanks before it
    return data if first == ord("{") else {} if first == ord("n") else {"value": data}


def status_change(envelope: Envelope) -> bytes | None:
    """What follows on an event that changes a task's state, as the fold has put it into the data."""
    value = envelope.value
    state = value.get("state") if isinstance(value, dict) else None
    if not isinstance(state, str):
        return None  # the event of another namespace, or one that the fold could not take
    task = _task_of(envelope)
    if task is None:
        return None
    fields = {"type": "task_status_change", "channel": name_of(envelope.channel), "task_id": task}
    data = {"task_id": task, "status": status_word(state)}
    return encode_object({**fields, "data": data, "timestamp": iso_time(envelope.time)})


def _task_of(envelope: Envelope) -> Any:
    """The task that an event is about: `x` says it, or else its channel; None if that is of projects, for instance."""
    namespace, _, local = (envelope.channel or "").partition(":")
    if envelope.extra is not None and "task_id" in envelope.extra:
        return envelope.extra["task_id"]
    return unescape_id(local) if _ID_KEYS.get(namespace, "task_id") == "task_id" else None


MOVES = frozenset(set(TaskEvent) - {TaskEvent.OUTPUT, TaskEvent.PROGRESS, TaskEvent.DELIVERED, TaskEvent.SNAPSHOT})
"""Events that change a task's state; progress does if it must not give way to newer progress."""


def established(envelope: Envelope) -> dict[str, Any]:
    connection = read(Welcome, envelope).connection
    return {"type": "connection_established", "connection_id": connection, "timestamp": iso_time(envelope.time)}


def _unsubscribed(envelope: Envelope) -> dict[str, Any]:
    reason = error_of(envelope).message
    channel = name_of(envelope.channel)
    return {"type": "unsubscribed", "channel": channel, "reason": reason, "timestamp": iso_time(envelope.time)}


def _error(envelope: Envelope) -> dict[str, Any]:
    return {"type": "error", "message": error_of(envelope).message, "timestamp": iso_time(envelope.time)}


def _expiring(envelope: Envelope) -> dict[str, Any]:
    expires = iso_time(read(Expiring, envelope).expires)
    return {"type": "auth_expiring", "expires": expires, "timestamp": iso_time(envelope.time)}


def other(envelope: Envelope) -> dict[str, Any]:
    return {
        "type": envelope.type,
        "channel": name_of(envelope.channel),
        "data": envelope.data,
        "timestamp": iso_time(envelope.time),
    }


def _user_notice(kind: str, envelope: Envelope) -> dict[str, Any]:
    fields = {
        "type": kind,
        "channel": name_of(envelope.channel),
        "data": envelope.data,
        "timestamp": iso_time(envelope.time),
        "message_id": envelope.id,
        "user_id": envelope.sender,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _crowd(envelope: Envelope) -> dict[str, Any]:
    return {
        "type": "online_users",
        "channel": name_of(envelope.channel),
        **envelope.value,
        "timestamp": iso_time(envelope.time),
        "message_id": envelope.id,
    }


EVENTS: dict[str, Callable[[Envelope], dict[str, Any]]] = {
    MessageType.PUB: published,
    MessageType.WELCOME: established,
    MessageType.UNSUB: _unsubscribed,
    MessageType.ERR: _error,
    MessageType.AUTH: _expiring,
    MessageType.JOIN: partial(_user_notice, "user_online"),
    MessageType.LEAVE: partial(_user_notice, "user_offline"),
    MessageType.PRESENCE: _crowd,
}

SERVER_TYPES = frozenset(
    (
        *("connection", "connection_established", "welcome", "error", "event", "echo", "ping", "pong", "heartbeat_ack"),
        *("subscription_result", "unsubscription_result", "unsubscribed", "auth_expiring", "status"),
        *("history", "input_result", "cancel_result", "tasks", "gap", "reconnect", "bye"),
        *("notifications", "mark_read_result"),
        *("user_online", "user_offline", "online_users"),
    )
)
"""What only the server itself says: an event of that name is sent as `event`, so that no client can forge it."""


def status_word(state: str) -> str:
    """The state of a task, in the words of these clients."""
    return _OLD_STATES.get(state, state.upper())
