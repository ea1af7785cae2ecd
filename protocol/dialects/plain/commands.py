"""The plain dialect, client to server: a flat JSON object as a command.

Its commands carry no request id, so the form of an answer depends on the command. A decoded command therefore keeps the
plain type in `Envelope.event`, and the client's own words, since names and ids are returned as they were.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from fanline.protocol.compat.escapes import escape_id
from fanline.protocol.dialects.plain.names import channel_named, channel_of_id, is_offset, task_id_of
from fanline.protocol.envelope import MAX_TEXT, Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.commands import CallData
from fanline.protocol.text import harmless, is_name
from fanline.protocol.values import check_value
from fanline.protocol.websocket.routes import Visit

TALK = "talk"
"""The type of commands that only these clients know; `event` says which it is."""
NEW_MESSAGE = "new_message"
"""The event of a message of a chat."""
SAID_OF_CLIENTS = frozenset(
    (
        *("session_joined", "session_left", "user_status_update", "message_status_update", "task_status_change"),
        *("collaboration_start", "collaboration_end"),
    )
)
"""Events by which the server says what plain clients do. Backends may say them as well, but no client."""
OWN = "own"
"""The type of messages that only the application may know; the data is all that they say but for their own type."""
_decoder = msgspec.json.Decoder()

_Fields = Mapping[str, Any]


class PlainCommand(Envelope):
    """A command of a plain client."""

    said: _Fields = msgspec.field(default_factory=dict)
    """The fields of the client's message."""
    live: bool = False
    """Of a `pub`: it goes to the current subscribers of the channel, and is stored nowhere."""


def decode_plain(payload: bytes, visit: Visit) -> list[Envelope]:
    """The command in one client message; none for what needs no answer. Raises MessageError."""
    fields = _decode_object(payload)
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        raise MessageError(ErrorCode.BAD_MESSAGE, "Missing message type")
    command = COMMANDS.get(kind, _own)(fields, visit)
    return [] if command is None else [command]


def _decode_object(payload: bytes) -> dict[str, Any]:
    try:
        fields = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MessageError(ErrorCode.BAD_MESSAGE, "Invalid JSON format") from None
    if not isinstance(fields, dict):
        raise MessageError(ErrorCode.BAD_MESSAGE, "Missing message type")
    check_value(fields)
    return fields


def _text(fields: _Fields, key: str, missing: str, code: ErrorCode = ErrorCode.BAD_MESSAGE) -> str:
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # some of the old systems have numeric ids
    if not isinstance(value, str) or not value:
        raise MessageError(code, missing)
    return value


def _channel(fields: _Fields, visit: Visit) -> str:
    return channel_named(_text(fields, "channel", "Channel name required", ErrorCode.BAD_CHANNEL), visit.rooms)


def _ping(fields: _Fields, visit: Visit) -> PlainCommand:
    return PlainCommand(MessageType.PING, event=fields["type"], data=fields.get("timestamp"))


def _channel_command(kind: MessageType, fields: _Fields, visit: Visit) -> PlainCommand:
    return PlainCommand(kind, channel=_channel(fields, visit), event=fields["type"], said=fields)


def _place(fields: _Fields, visit: Visit) -> str:
    """The channel of the session or the room that a message is about."""
    if "session_id" in fields:
        return channel_of_id("session", _text(fields, "session_id", "Session id required"))
    if "room_id" in fields:
        return _room(fields, visit)
    return _channel(fields, visit)


def _room(fields: _Fields, visit: Visit) -> str:
    return channel_named(_text(fields, "room_id", "Room id required"), visit.rooms)


def _new_message(fields: _Fields, visit: Visit) -> PlainCommand:
    own_id = fields.get("message_id")
    extra = _names(fields) | ({} if own_id is None else {"client_message_id": own_id})
    return PlainCommand(
        MessageType.PUB,
        channel=_place(fields, visit),
        event=NEW_MESSAGE,
        data=fields.get("data"),
        extra=extra or None,
        said=fields,
    )


def _typing(fields: _Fields, visit: Visit) -> PlainCommand:
    is_typing = bool(fields.get("is_typing", True))
    return PlainCommand(
        MessageType.PUB,
        channel=_place(fields, visit),
        event="typing",
        data={"is_typing": is_typing},
        extra={**_names(fields), "is_typing": is_typing},
        live=True,
    )


def _names(fields: _Fields) -> dict[str, Any]:
    """What a message is about, as the client has named it."""
    return {key: fields[key] for key in ("session_id", "room_id") if isinstance(fields.get(key), str | int)}


def _room_command(fields: _Fields, visit: Visit) -> PlainCommand:
    return PlainCommand(TALK, channel=_room(fields, visit), event=fields["type"], said=fields)


def _message_read(fields: _Fields, visit: Visit) -> PlainCommand:
    message_id = _text(fields, "message_id", "Message id required")
    return PlainCommand(TALK, event=fields["type"], data=message_id, said=fields)


def _user_status(fields: _Fields, visit: Visit) -> PlainCommand:
    status = _text(fields, "status", "Status required")
    return PlainCommand(TALK, event=fields["type"], data=status, said=fields)


def _connect(fields: _Fields, visit: Visit) -> PlainCommand:
    """The client says who it is, or shows its token, which says so."""
    needs_name = fields.get("user_id") is not None or fields.get("token") is None
    user = _text(fields, "user_id", "User id required") if needs_name else None
    return PlainCommand(TALK, event=fields["type"], data=user, said=fields)


def _document(fields: _Fields) -> str:
    return channel_of_id("doc", _text(fields, "document_id", "Document id required"))


def _document_edit(fields: _Fields, visit: Visit) -> PlainCommand:
    _text(fields, "operation", "Operation required")
    data = {key: value for key, value in fields.items() if key not in ("type", "document_id", "message_id")}
    document = fields.get("document_id")
    extra = {"document_id": document}
    channel = _document(fields)
    return PlainCommand(MessageType.PUB, channel=channel, event=fields["type"], data=data, extra=extra, said=fields)


def _document_command(fields: _Fields, visit: Visit) -> PlainCommand:
    return PlainCommand(TALK, channel=_document(fields), event=fields["type"], said=fields)


def _history(fields: _Fields, visit: Visit) -> PlainCommand:
    """`before` is what the page after it named: OFFSET@EPOCH."""
    command = _channel_command(MessageType.HISTORY, fields, visit)
    data = {"limit": fields["limit"]} if "limit" in fields else {}
    if fields.get("before") is not None:
        offset, _, epoch = str(fields["before"]).partition("@")
        if not is_offset(offset):
            raise MessageError(ErrorCode.BAD_MESSAGE, "`before` is that of another `history`")
        data["before"], command.epoch = int(offset), epoch or None
    command.data = data
    return command


def _ack(fields: _Fields, visit: Visit) -> PlainCommand:
    said = _text(fields, "message_id", "Message id required")
    name, _, offset = said.rpartition("#")
    if ":" in name and is_offset(offset):
        return PlainCommand(MessageType.ACK, channel=channel_named(name, visit.rooms), offset=int(offset), event="ack")
    return PlainCommand(MessageType.ACK, event="ack", data=said)


def _task_command(verb: str, fields: _Fields, visit: Visit, missing: str = "Task ID required") -> PlainCommand:
    channel = channel_of_id("task", _text(fields, "task_id", missing))
    return PlainCommand(MessageType.CALL, channel=channel, event=verb, said=fields)


def _status(fields: _Fields, visit: Visit) -> PlainCommand:
    own = visit.values.get("task_id")
    if fields.get("task_id") is None and own is not None:
        fields = {**fields, "task_id": task_id_of(own)}
        return PlainCommand(MessageType.CALL, channel=f"task:{escape_id(own)}", event="status", said=fields)
    return _task_command("status", fields, visit)


def _task_input(fields: _Fields, visit: Visit) -> PlainCommand:
    missing = "Task ID and input required"
    if fields.get("input") is None:
        raise MessageError(ErrorCode.BAD_MESSAGE, missing)
    command = _task_command("input", fields, visit, missing)
    command.data = CallData(value=fields["input"]).fields()
    return command


def _board(fields: _Fields, visit: Visit) -> PlainCommand:
    """The fields of the item are in `data`, or at the top level; `key` is its id, if the event is about one."""
    data = fields.get("data")
    top = {key: fields[key] for key in ("task_id", "project_id") if key in fields}
    item = {**top, **data} if isinstance(data, dict) else {key: fields[key] for key in fields if key != "type"}
    key = _text(item, "task_id", "Task ID required") if fields["type"] != "tasks_reset" else None
    return PlainCommand(TALK, event=fields["type"], key=key, data=item, said=fields)


def _get_tasks(fields: _Fields, visit: Visit) -> PlainCommand:
    project = visit.values.get("?project_id") if "project_id" not in fields else None
    project = project or _text(fields, "project_id", "Project id required")
    return PlainCommand(TALK, event=fields["type"], data=project, said=fields)


def _get_notifications(fields: _Fields, visit: Visit) -> PlainCommand:
    data = {key: fields[key] for key in ("limit", "before", "unread") if fields.get(key) is not None}
    return PlainCommand(TALK, event=fields["type"], data=data, said=fields)


def _mark_read(fields: _Fields, visit: Visit) -> PlainCommand:
    """One notification, several, or all."""
    one, several = fields.get("notification_id"), fields.get("notification_ids")
    data = {} if one is None and several is None else {"ids": [one] if several is None else several}
    return PlainCommand(TALK, event=fields["type"], data=data, said=fields)


def _own(fields: _Fields, visit: Visit) -> PlainCommand:
    kind = fields["type"]
    if len(kind) > MAX_TEXT or not is_name(kind):
        raise MessageError(ErrorCode.UNKNOWN_TYPE, f"Unknown message type: {harmless(kind[:MAX_TEXT])}")
    return PlainCommand(OWN, data={key: fields[key] for key in fields if key != "type"}, said=fields)


BOARD = ("task_created", "task_updated", "task_deleted", "task_status_changed", "tasks_reset")
"""What clients say of the items of a task board."""
COMMANDS: dict[str, Callable[[_Fields, Visit], PlainCommand | None]] = {
    "ping": _ping,
    "heartbeat": _ping,
    "pong": lambda fields, visit: None,  # counts as a sign of life, as any byte does
    "subscribe": partial(_channel_command, MessageType.SUB),
    "unsubscribe": partial(_channel_command, MessageType.UNSUB),
    "connect": _connect,
    "join_room": _room_command,
    "leave_room": _room_command,
    "typing": _typing,
    NEW_MESSAGE: _new_message,
    "message_read": _message_read,
    "get_notifications": _get_notifications,
    "mark_read": _mark_read,
    "user_status": _user_status,
    "document_edit": _document_edit,
    "collaboration_start": _document_command,
    "collaboration_end": _document_command,
    **dict.fromkeys(BOARD, _board),
    "get_tasks": _get_tasks,
    "history": _history,
    "get_online_users": partial(_channel_command, MessageType.PRESENCE),
    "ack": _ack,
    "get_status": _status,
    "status_request": _status,
    "task_input": _task_input,
    "task_cancel": partial(_task_command, "cancel"),
}
