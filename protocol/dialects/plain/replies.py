"""The plain dialect: the replies to commands, as flat JSON objects."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from fanline.protocol.dialects.plain.commands import BOARD, OWN, PlainCommand
from fanline.protocol.dialects.plain.events import published, status_word
from fanline.protocol.dialects.plain.names import name_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode
from fanline.protocol.messages.answers import HistoryAnswer, PublishResult, error_of
from fanline.protocol.messages.control_data import read
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.times import iso_time


def refusal(command: Envelope | None, reply: Envelope) -> dict[str, Any]:
    """Commands with a result of their own report a failure in it; all others, and a right that is missing, get an
    `error`. `connect` asks for no right: a name may belong to another user.
    """
    error, kind = error_of(reply), command.event if command is not None else None
    if command is not None and error.code == ErrorCode.PERMISSION_DENIED and not _speaks_for_itself(command):
        is_task = command.type == MessageType.CALL or kind in BOARD
        denied = "Task access denied" if is_task else "Channel access denied"
        return {"type": "error", "message": denied}
    if isinstance(command, PlainCommand):
        if error.code == ErrorCode.NOT_SUBSCRIBED and kind == "unsubscribe":
            return REPLIES["unsubscribe"](command, reply)  # which is what the client wants
        if kind in _RESULTS:
            return _result(command, success=False) | {"message": error.message}
    if error.code == ErrorCode.INTERNAL:
        return {"type": "error", "message": "Message processing error"}
    return {"type": "error", "message": error.message}


def _speaks_for_itself(command: Envelope) -> bool:
    """Whether a refusal of this command is about no channel: a name that belongs to another user, or a call of the
    management API.
    """
    return command.event == "connect" or command.type == OWN


def _pong(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    kind = "heartbeat_ack" if command.event == "heartbeat" else "pong"
    return {"type": kind} if command.data is None else {"type": kind, "timestamp": command.data}


def own_answer(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    """What the application has returned: a message, with a type of its own or without, or another value."""
    kind = {"type": f"{command.said['type']}_result"}
    return {**kind, **reply.data} if isinstance(reply.data, dict) else {**kind, "data": reply.data}


_RESULTS = {"input": "input_result", "cancel": "cancel_result"}


def _result(command: PlainCommand, *, success: bool) -> dict[str, Any]:
    return {"type": _RESULTS[command.event or ""], "task_id": command.said["task_id"], "success": success}


def status_of(task_id: Any, known: dict[str, Any]) -> dict[str, Any]:
    """What is `known` of a task, the plain map of its snapshot, in the words of these clients."""
    snapshot = msgspec.convert(known, Snapshot)
    own = {key: value for key, value in (snapshot.fields or {}).items() if key == key.lower()}  # as all keys here
    return {
        **own,  # first: they cannot pass for what the server says
        "type": "status",
        "task_id": task_id,
        "status": status_word(snapshot.state),
        "created_at": None if snapshot.created is None else iso_time(snapshot.created),
        "updated_at": None if snapshot.updated is None else iso_time(snapshot.updated),
        **known,
    }


def _page(command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    answer = read(HistoryAnswer, reply)
    page = {
        "type": "history",
        "channel": command.said["channel"],
        "messages": [published(message) for message in answer.messages if message.type == MessageType.PUB],
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
    """In the form in which the others get it."""
    known = {"document_id": command.said["document_id"], **reply.data}
    return {"type": command.event, "channel": name_of(command.channel), **known, "data": known}


def _room_result(kind: str, command: PlainCommand, reply: Envelope) -> dict[str, Any]:
    """In the form in which the others in the room get it."""
    channel, data = name_of(command.channel), {**reply.data, "room_id": command.said["room_id"]}
    return {"type": kind, "channel": channel, "room_id": command.said["room_id"], **reply.data, "data": data}


REPLIES: dict[str, Callable[[PlainCommand, Envelope], dict[str, Any]]] = {
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
    "get_notifications": lambda _, reply: {"type": "notifications", **reply.data},
    "mark_read": lambda _, reply: {"type": "mark_read_result", **reply.data},
    "connect": _named,
    "join_room": partial(_room_result, "session_joined"),
    "leave_room": partial(_room_result, "session_left"),
}
