"""The plain dialect of routes by which clients try a server out: one answers pings, one sends everything back."""

from typing import Any

import msgspec

from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.dialects.plain.events import encode_object
from fanline.protocol.dialects.plain.plain import PlainDialect
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import MessageError
from fanline.protocol.times import iso_time
from fanline.protocol.values import check_value
from fanline.protocol.websocket.routes import Visit

_decode = msgspec.json.Decoder().decode


class HealthDialect(PlainDialect):
    """Its `pong` has the server's time as well, as a text of Unix seconds."""

    name = "health"

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        if reply.type != MessageType.PONG or command is None or command.event != "ping":
            return super().encode_reply(command, reply)
        timestamp = iso_time(reply.time) if command.data is None else command.data
        return encode_object({"type": "pong", "timestamp": timestamp, "server_time": _unix_seconds(reply)})

    def welcome(self, envelope: Envelope, visit: Visit) -> bytes:
        fields = {**visit.path_values, "type": "welcome", "message": visit.greeting_text}
        return encode_object({**fields, "timestamp": iso_time(envelope.time)})


class EchoDialect(HealthDialect):
    """Whatever comes, JSON or not, is a `ping` whose answer repeats it."""

    name = "echo"

    def decode(self, payload: bytes, visit: Visit = Visit()) -> list[Envelope]:  # noqa: B008  # it is immutable
        return [
            PlainCommand(MessageType.PING, event="echo", said={"names": visit.path_values, "value": _read(payload)})
        ]

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        if not isinstance(command, PlainCommand) or reply.type != MessageType.PONG:
            return super().encode_reply(command, reply)
        fields = {**command.said["names"], "type": "echo", "original_message": command.said["value"]}
        return encode_object({**fields, "timestamp": _unix_seconds(reply)})


def _unix_seconds(reply: Envelope) -> str:
    return str((reply.time or 0) // 1000)


def _read(payload: bytes) -> Any:
    """The value of a JSON text; the text itself if it is not JSON, or more than a message may hold."""
    try:
        value = _decode(payload)
        check_value(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, MessageError):
        return payload.decode("utf-8", "replace")
    return value
