"""The plain dialect: flat JSON objects with a `type`, for clients that already exist (docs/reference/plain-dialect.md).

Its commands carry no request id, so the form of an answer depends on the command. A decoded command therefore keeps the
plain type in `Envelope.event`, and in `data` what the answer must repeat.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from fanline.protocol.envelope import Envelope, MessageType, check_value
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages import CallData, HistoryAnswer, PublishResult, Welcome, error_of, read
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState
from fanline.protocol.text import harmless
from fanline.protocol.websocket.frames import Opcode

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()

_Fields = Mapping[str, Any]


class PlainDialect:
    """For clients that ask for no subprotocol: text messages."""

    name = "plain"
    opcode = Opcode.TEXT

    def decode(self, payload: bytes) -> list[Envelope]:
        fields = _decode_object(payload)
        kind = fields.get("type")
        if not isinstance(kind, str) or not kind:
            raise MessageError(ErrorCode.BAD_MESSAGE, "Missing message type")
        build = _COMMANDS.get(kind)
        if build is None:
            raise MessageError(ErrorCode.UNKNOWN_TYPE, f"Unknown message type: {harmless(kind[:128])}")
        command = build(fields)
        return [] if command is None else [command]

    def encode(self, envelope: Envelope) -> bytes:
        build = _EVENTS.get(envelope.type, _other)
        return _encoder.encode(build(envelope))

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        if reply.type == MessageType.ERR:
            return _encoder.encode(_refusal(command, reply))
        build = _REPLIES.get(command.event or "") if command is not None else None
        return None if command is None or build is None else _encoder.encode(build(command, reply))

    def heartbeat(self, time_ms: int) -> bytes | None:
        return _encoder.encode({"type": "ping", "timestamp": iso_time(time_ms)})


def iso_time(unix_ms: int | None) -> str | None:
    """Unix milliseconds as ISO 8601 text in UTC; None for a time beyond the calendar (year 9999)."""
    try:
        moment = datetime.fromtimestamp((unix_ms or 0) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _decode_object(payload: bytes) -> dict[str, Any]:
    try:
        fields = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MessageError(ErrorCode.BAD_MESSAGE, "Invalid JSON format") from None
    if not isinstance(fields, dict):
        raise MessageError(ErrorCode.BAD_MESSAGE, "Missing message type")
    check_value(fields)
    return fields


# --- client to server ---------------------------------------------------------------------------------------------


def _text(fields: _Fields, key: str, missing: str, code: ErrorCode = ErrorCode.BAD_MESSAGE) -> str:
    value = fields.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # some of the old systems have numeric ids
    if not isinstance(value, str) or not value:
        raise MessageError(code, missing)
    return value


def _ping(fields: _Fields) -> Envelope:
    return Envelope(MessageType.PING, event=fields["type"], data=fields.get("timestamp"))


def _channel_command(kind: MessageType, fields: _Fields) -> Envelope:
    channel = _text(fields, "channel", "Channel name required", ErrorCode.BAD_CHANNEL)
    return Envelope(kind, channel=channel, event=fields["type"])


def _new_message(fields: _Fields) -> Envelope:
    if "session_id" in fields:
        channel = f"session:{_text(fields, 'session_id', 'Session id required')}"
    else:
        channel = _text(fields, "channel", "Channel name required", ErrorCode.BAD_CHANNEL)
    return Envelope(MessageType.PUB, channel=channel, event="new_message", data=fields.get("data"))


def _history(fields: _Fields) -> Envelope:
    """`before` is what the page after it named: OFFSET@EPOCH."""
    command = _channel_command(MessageType.HISTORY, fields)
    data = {"limit": fields["limit"]} if "limit" in fields else {}
    if fields.get("before") is not None:
        offset, _, epoch = str(fields["before"]).partition("@")
        if not (offset.isascii() and offset.isdigit() and len(offset) <= _MAX_DIGITS):
            raise MessageError(ErrorCode.BAD_MESSAGE, "`before` is that of another `history`")
        data["before"], command.epoch = int(offset), epoch or None
    command.data = data
    return command


def _ack(fields: _Fields) -> Envelope:
    return Envelope(MessageType.ACK, event="ack", data=_text(fields, "message_id", "Message id required"))


def _task_command(verb: str, fields: _Fields, missing: str = "Task ID required") -> Envelope:
    return Envelope(MessageType.CALL, channel=f"task:{_text(fields, 'task_id', missing)}", event=verb)


def _task_input(fields: _Fields) -> Envelope:
    missing = "Task ID and input required"
    if fields.get("input") is None:
        raise MessageError(ErrorCode.BAD_MESSAGE, missing)
    command = _task_command("input", fields, missing)
    command.data = CallData(value=fields["input"]).fields()
    return command


_COMMANDS: dict[str, Callable[[_Fields], Envelope | None]] = {
    "ping": _ping,
    "heartbeat": _ping,
    "pong": lambda _: None,  # counts as a sign of life, as any byte does
    "subscribe": partial(_channel_command, MessageType.SUB),
    "unsubscribe": partial(_channel_command, MessageType.UNSUB),
    "get_online_users": partial(_channel_command, MessageType.PRESENCE),
    "new_message": _new_message,
    "history": _history,
    "ack": _ack,
    "get_status": partial(_task_command, "status"),
    "status_request": partial(_task_command, "status"),
    "task_input": _task_input,
    "task_cancel": partial(_task_command, "cancel"),
}


# --- server to client ---------------------------------------------------------------------------------------------


_OWN_KEYS = frozenset(("type", "channel", "data", "timestamp", "message_id"))
"""What an extra attribute never stands for."""
_OLD_NAMES = {"task_progress": "task_progress_update"}  # the names that these clients know


def _published(envelope: Envelope) -> dict[str, Any]:
    fields = {
        "type": _OLD_NAMES.get(envelope.event or "", envelope.event or "message"),
        "channel": envelope.channel,
        "data": envelope.data,
        "timestamp": iso_time(envelope.time),
        "message_id": envelope.id,
        "user_id": envelope.sender,
        "priority": envelope.priority,
    }
    shown = {key: value for key, value in fields.items() if value is not None or key == "data"}
    if envelope.extra is not None:
        shown |= {key: value for key, value in envelope.extra.items() if key not in _OWN_KEYS}
    return shown


def _welcome(envelope: Envelope) -> dict[str, Any]:
    return {
        "type": "connection_established",
        "connection_id": read(Welcome, envelope).connection,
        "timestamp": iso_time(envelope.time),
    }


def _other(envelope: Envelope) -> dict[str, Any]:
    return {
        "type": envelope.type,
        "channel": envelope.channel,
        "data": envelope.data,
        "timestamp": iso_time(envelope.time),
    }


def _user_notice(kind: str, envelope: Envelope) -> dict[str, Any]:
    fields = {
        "type": kind,
        "channel": envelope.channel,
        "data": envelope.data,
        "timestamp": iso_time(envelope.time),
        "message_id": envelope.id,
        "user_id": envelope.sender,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _crowd(envelope: Envelope) -> dict[str, Any]:
    return {
        "type": "online_users",
        "channel": envelope.channel,
        **envelope.value,
        "timestamp": iso_time(envelope.time),
        "message_id": envelope.id,
    }


_EVENTS: dict[str, Callable[[Envelope], dict[str, Any]]] = {
    MessageType.PUB: _published,
    MessageType.WELCOME: _welcome,
    MessageType.JOIN: partial(_user_notice, "user_online"),
    MessageType.LEAVE: partial(_user_notice, "user_offline"),
    MessageType.PRESENCE: _crowd,
}


def _refusal(command: Envelope | None, reply: Envelope) -> dict[str, Any]:
    """Commands with a result of their own report a failure in it; all others, and a right that is missing, get an
    `error`.
    """
    form, error = {"type": "error"}, error_of(reply)
    if command is not None and error.code == ErrorCode.PERMISSION_DENIED:
        return form | {"message": "Task access denied" if command.type == MessageType.CALL else "Channel access denied"}
    if command is not None and command.event in _RESULTS:
        form = _result(command, success=False)
    return form | {"message": error.message}


def _pong(command: Envelope, reply: Envelope) -> dict[str, Any]:
    kind = "heartbeat_ack" if command.event == "heartbeat" else "pong"
    return {"type": kind, "timestamp": iso_time(reply.time) if command.data is None else command.data}


_MAX_DIGITS = 19  # of any 64-bit integer; int() refuses what has thousands
_RESULTS = {"input": "input_result", "cancel": "cancel_result"}
_OLD_STATES = {TaskState.RUNNING: "PROCESSING"}


def _task_id(command: Envelope) -> int | str:
    task = (command.channel or "").partition(":")[2]
    return int(task) if task.isascii() and task.isdigit() and len(task) <= _MAX_DIGITS else task


def _result(command: Envelope, *, success: bool) -> dict[str, Any]:
    return {"type": _RESULTS[command.event or ""], "task_id": _task_id(command), "success": success}


def _status(command: Envelope, reply: Envelope) -> dict[str, Any]:
    snapshot = msgspec.convert(reply.value, Snapshot)
    return {
        "type": "status",
        "task_id": _task_id(command),
        "status": _OLD_STATES.get(snapshot.state, snapshot.state.upper()),
        "created_at": iso_time(snapshot.created),
        "updated_at": iso_time(snapshot.updated),
        **reply.value,
    }


def _page(command: Envelope, reply: Envelope) -> dict[str, Any]:
    answer = read(HistoryAnswer, reply)
    page = {
        "type": "history",
        "channel": command.channel,
        "messages": [_published(message) for message in answer.messages if message.type == MessageType.PUB],
        "more": answer.more,
    }
    return page | ({"before": f"{reply.offset}@{reply.epoch}"} if answer.more else {})


_REPLIES: dict[str, Callable[[Envelope, Envelope], dict[str, Any]]] = {
    "ping": _pong,
    "heartbeat": _pong,
    "subscribe": lambda command, _: {"type": "subscription_result", "channel": command.channel, "subscribed": True},
    "unsubscribe": lambda command, _: {
        "type": "unsubscription_result",
        "channel": command.channel,
        "unsubscribed": True,
    },
    "get_online_users": lambda command, reply: {
        "type": "online_users",
        "channel": command.channel,
        **reply.value,
    },
    "status": _status,
    "history": _page,
    "input": lambda command, _: _result(command, success=True),
    "cancel": lambda command, _: _result(command, success=True),
    "new_message": lambda _, reply: {
        "type": "message_status_update",
        "message_id": read(PublishResult, reply).id,
        "status": "sent",
    },
}
