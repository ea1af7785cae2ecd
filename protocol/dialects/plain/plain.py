"""The plain dialect: flat JSON objects with a `type`, for clients that already exist (docs/reference/plain-dialect.md).

Clients' messages are in commands.py, the server's own messages in events.py, and its answers in replies.py.
"""

from typing import Any

from fanline.protocol.dialects.plain.commands import OWN, PlainCommand, decode_plain
from fanline.protocol.dialects.plain.events import EVENTS, MOVES, encode_object, established, other, status_change
from fanline.protocol.dialects.plain.names import task_id_of
from fanline.protocol.dialects.plain.replies import REPLIES, own_answer, refusal
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.times import iso_time
from fanline.protocol.websocket.frames import Opcode
from fanline.protocol.websocket.routes import Visit


class PlainDialect:
    """For clients that ask for no subprotocol: text messages."""

    name = "plain"
    opcode = Opcode.TEXT
    is_plain = True

    def decode(self, payload: bytes, visit: Visit = Visit()) -> list[Envelope]:  # noqa: B008  # it is immutable
        return decode_plain(payload, visit)

    def encode(self, envelope: Envelope) -> bytes:
        return encode_object(EVENTS.get(envelope.type, other)(envelope))

    def follow_up(self, envelope: Envelope) -> bytes | None:
        event = envelope.event
        if event in MOVES or (event == TaskEvent.PROGRESS and envelope.key is None):
            return status_change(envelope)
        return None

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        if reply.type == MessageType.ERR:
            fields = refusal(command, reply)
        elif isinstance(command, PlainCommand) and command.type == OWN:
            if reply.data is None:
                return None
            fields = own_answer(command, reply)
        elif isinstance(command, PlainCommand) and command.event in REPLIES:
            fields = REPLIES[command.event](command, reply)
        else:
            return None
        return encode_object({**fields, "timestamp": fields.get("timestamp", iso_time(reply.time))})

    def heartbeat(self, time_ms: int) -> bytes | None:
        return encode_object({"type": "ping", "timestamp": iso_time(time_ms)})

    def welcome(self, envelope: Envelope, visit: Visit) -> bytes:
        if not visit.greeting:
            return encode_object(established(envelope))
        names: dict[str, Any] = {**visit.path_values}
        if "task_id" in names:
            names["task_id"] = task_id_of(names["task_id"])
        fields = {**names, "type": "connection", "message": visit.greeting_text}
        return encode_object({**fields, "timestamp": iso_time(envelope.time)})
