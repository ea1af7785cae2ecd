"""The plain dialect: flat JSON objects with a `type`, for clients that already exist (docs/reference/plain-dialect.md).

What clients say is in plain_commands.py; here is what they are told.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from fanline.protocol.dialects.notices import NOTIFICATION, notice_of
from fanline.protocol.dialects.plain_commands import BOARD, OWN, PlainCommand, decode_plain, name_of, task_id_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode
from fanline.protocol.escapes import unescape_id
from fanline.protocol.messages import Expiring, HistoryAnswer, PublishResult, Welcome, error_of, read
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState
from fanline.protocol.websocket.frames import Opcode
from fanline.protocol.websocket.routes import Visit

encode_object = msgspec.json.Encoder().encode
"""A message, which is a JSON object."""
DOCUMENT_EDIT = "document_edit"
"""The event whose offset is its place in the order of all edits of a document."""


class PlainDialect:
    """For clients that ask for no subprotocol: text messages."""

    name = "plain"
    opcode = Opcode.TEXT
    is_plain = True

    def decode(self, payload: bytes, visit: Visit = Visit()) -> list[Envelope]:  # noqa: B008  # it is immutable
        return decode_plain(payload, visit)

    def encode(self, envelope: Envelope) -> bytes:
        return encode_object(_EVENTS.get(envelope.type, _other)(envelope))

    def follow_up(self, envelope: Envelope) -> bytes | None:
        event = envelope.event
        if event in _MOVES or (event == TaskEvent.PROGRESS and envelope.key is None):
            return _status_change(envelope)
        return None

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        if reply.type == MessageType.ERR:
            fields = _refusal(command, reply)
        elif isinstance(command, PlainCommand) and command.type == OWN:
            if reply.data is None:
                return None
            fields = _own_answer(command, reply)
        elif isinstance(command, PlainCommand) and command.event in _REPLIES:
            fields = _REPLIES[command.event](command, reply)
        else:
            return None
        return encode_object({**fields, "timestamp": fields.get("timestamp", iso_time(reply.time))})

    def heartbeat(self, time_ms: int) -> bytes | None:
        return encode_object({"type": "ping", "timestamp": iso_time(time_ms)})

    def welcome(self, envelope: Envelope, visit: Visit) -> bytes:
        if not visit.greeting:
            return encode_object(_established(envelope))
        names: dict[str, Any] = {**visit.path_values}
        if "task_id" in names:
            names["task_id"] = task_id_of(names["task_id"])
        fields = {**names, "type": "connection", "message": visit.greeting_text}
        return encode_object({**fields, "timestamp": iso_time(envelope.time)})


def iso_time(unix_ms: int | None) -> str | None:
    """Unix milliseconds as ISO 8601 text in UTC; None for a time beyond the calendar (year 9999)."""
    try:
        moment = datetime.fromtimestamp((unix_ms or 0) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- what answers no command --------------------------------------------------------------------------------------


_OWN_KEYS = frozenset(("type", "event", "channel", "data", "timestamp", "message_id"))
"""What an extra attribute never stands for."""
_OLD_NAMES = {"task_progress": "task_progress_update"}  # the names that these clients know
_ID_KEYS = {"task": "task_id", "project": "project_id", "session": "session_id", "doc": "document_id"}
_PRIORITY, _TTL = 5, 3600  # as shown where a message has none


def _published(envelope: Envelope) -> dict[str, Any]:
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


def _status_change(envelope: Envelope) -> bytes | None:
    """What follows on an event that changes a task's state, as the fold has put it into the data."""
    value = envelope.value
    state = value.get("state") if isinstance(value, dict) else None
    if not isinstance(state, str):
        return None  # the event of another namespace, or one that the fold could not take
    task = _task_of(envelope)
    if task is None:
        return None
    fields = {"type": "task_status_change", "channel": name_of(envelope.channel), "task_id": task}
    data = {"task_id": task, "status": _status_word(state)}
    return encode_object({**fields, "data": data, "timestamp": iso_time(envelope.time)})


def _task_of(envelope: Envelope) -> Any:
    """The task that an event is about: `x` says it, or else its channel; None if that is of projects, for instance."""
    namespace, _, local = (envelope.channel or "").partition(":")
    if envelope.extra is not None and "task_id" in envelope.extra:
        return envelope.extra["task_id"]
    return unescape_id(local) if _ID_KEYS.get(namespace, "task_id") == "task_id" else None


_MOVES = frozenset(set(TaskEvent) - {TaskEvent.OUTPUT, TaskEvent.PROGRESS, TaskEvent.DELIVERED, TaskEvent.SNAPSHOT})
"""Events that change a task's state; progress does if it must not give way to newer progress."""


def _established(envelope: Envelope) -> dict[str, Any]:
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


def _other(envelope: Envelope) -> dict[str, Any]:
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


_EVENTS: dict[str, Callable[[Envelope], dict[str, Any]]] = {
    MessageType.PUB: _published,
    MessageType.WELCOME: _established,
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
        *("user_online", "user_offline", "online_users"),
    )
)
"""What only the server itself says: an event of that name is sent as `event`, so that nobody forges it."""


# --- answers ------------------------------------------------------------------------------------------------------


def _refusal(command: Envelope | None, reply: Envelope) -> dict[str, Any]:
    """Commands with a result of their own report a failure in it; all others, and a right that is missing, get an
    `error`. `connect` asks for no right: a name may belong to somebody else.
    """
    error, kind = error_of(reply), command.event if command is not None else None
    if command is not None and error.code == ErrorCode.PERMISSION_DENIED and kind != "connect":
        is_task = command.type == MessageType.CALL or kind in BOARD
        denied = "Task access denied" if is_task else "Channel access denied"
        return {"type": "error", "message": denied}
    if isinstance(command, PlainCommand):
        if error.code == ErrorCode.NOT_SUBSCRIBED and kind == "unsubscribe":
            return _REPLIES["unsubscribe"](command, reply)  # which is what the client wants
        if kind in _RESULTS:
            return _result(command, success=False) | {"message": error.message}
    if error.code == ErrorCode.INTERNAL:
        return {"type": "error", "message": "Message processing error"}
    return {"type": "error", "message": error.message}


def _pong(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    kind = "heartbeat_ack" if command.event == "heartbeat" else "pong"
    return {"type": kind} if command.data is None else {"type": kind, "timestamp": command.data}


def _own_answer(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    """What the application has returned: a message, with a type of its own or without, or another value."""
    kind = {"type": f"{command.said['type']}_result"}
    return {**kind, **reply.data} if isinstance(reply.data, dict) else {**kind, "data": reply.data}


_RESULTS = {"input": "input_result", "cancel": "cancel_result"}
_OLD_STATES: dict[str, str] = {TaskState.RUNNING: "PROCESSING"}


def _result(command: PlainCommand, *, success: bool) -> dict[str, Any]:
    return {"type": _RESULTS[command.event or ""], "task_id": command.said["task_id"], "success": success}


def _status_word(state: str) -> str:
    return _OLD_STATES.get(state, state.upper())


def status_of(task_id: Any, known: dict[str, Any]) -> dict[str, Any]:
    """What is `known` of a task, the plain map of its snapshot, in the words of these clients."""
    snapshot = msgspec.convert(known, Snapshot)
    own = {key: value for key, value in (snapshot.fields or {}).items() if key == key.lower()}  # as all keys here
    return {
        **own,  # first: they cannot pass for what the server says
        "type": "status",
        "task_id": task_id,
        "status": _status_word(snapshot.state),
        "created_at": None if snapshot.created is None else iso_time(snapshot.created),
        "updated_at": None if snapshot.updated is None else iso_time(snapshot.updated),
        **known,
    }


def _page(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    answer = read(HistoryAnswer, reply)
    page = {
        "type": "history",
        "channel": command.said["channel"],
        "messages": [_published(message) for message in answer.messages if message.type == MessageType.PUB],
        "more": answer.more,
    }
    return page | ({"before": f"{reply.offset}@{reply.epoch}"} if answer.more else {})


def _channel_result(kind: str, done: str, command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    return {"type": kind, "channel": command.said["channel"], done: True}


def _sent(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    sent = {"type": "message_status_update", "message_id": read(PublishResult, reply).id, "status": "sent"}
    return sent | ({"client_message_id": command.said["message_id"]} if "message_id" in command.said else {})


def _named(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    """Under the name that counts, which need not be the one that the client has said."""
    user = command.said["user_id"] if command.data == reply.data["user"] is not None else reply.data["user"]
    known = {} if user is None else {"user_id": user}
    return {"type": "connection_established", "connection_id": reply.data["connection"], **known}


def _edited(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    return _sent(command, reply) | {"document_id": command.said["document_id"], "sequence": reply.offset}


def _collaboration(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    """As the others are told it."""
    known = {"document_id": command.said["document_id"], **reply.data}
    return {"type": command.event, "channel": name_of(command.channel), **known, "data": known}


def _room_result(kind: str, command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    """As the others in the room are told it."""
    channel, data = name_of(command.channel), {**reply.data, "room_id": command.said["room_id"]}
    return {"type": kind, "channel": channel, "room_id": command.said["room_id"], **reply.data, "data": data}


_REPLIES: dict[str, Callable[[PlainCommand, Envelope], dict[str, Any]]] = {
    "ping": _pong,
    "heartbeat": _pong,
    "subscribe": partial(_channel_result, "subscription_result", "subscribed"),
    "unsubscribe": partial(_channel_result, "unsubscription_result", "unsubscribed"),
    "status": lambda command, reply: status_of(command.said["task_id"], reply.value),
    "history": _page,
    "get_online_users": lambda command, reply: {
        "type": "online_users",
        "channel": command.said["channel"],
        **reply.value,
    },
    "input": lambda command, _: _result(command, success=True),
    "cancel": lambda command, _: _result(command, success=True),
    "new_message": _sent,
    "document_edit": _edited,
    "collaboration_start": _collaboration,
    "collaboration_end": _collaboration,
    "get_tasks": lambda _, reply: {"type": "tasks", **reply.data},
    "connect": _named,
    "join_room": partial(_room_result, "session_joined"),
    "leave_room": partial(_room_result, "session_left"),
}
