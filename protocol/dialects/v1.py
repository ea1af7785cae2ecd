"""Envelope v1 unchanged, as JSON text or as CBOR: one envelope in each message."""

from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, decode_json, encode_cbor, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.websocket.frames import Opcode
from fanline.protocol.websocket.routes import Visit

MAX_READS = 16_384
"""Of one CBOR message of a client: it takes some 5 ms to decode, and the same again to encode, where JSON takes 1."""


class JsonDialect:
    """Subprotocol `fanline.v1.json`: text messages."""

    name = "json"
    subprotocol = "fanline.v1.json"
    opcode = Opcode.TEXT
    is_plain = False

    def decode(self, payload: bytes, visit: Visit = Visit()) -> list[Envelope]:  # noqa: B008  # it is immutable
        return [_command(decode_json(payload))]

    def encode(self, envelope: Envelope) -> bytes:
        return encode_json(envelope)

    def follow_up(self, envelope: Envelope) -> bytes | None:
        return None

    def welcome(self, envelope: Envelope, visit: Visit) -> bytes:
        return encode_json(envelope)

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        return encode_json(reply) if _is_wanted(reply) else None

    def heartbeat(self, time_ms: int) -> bytes | None:
        return None  # the WebSocket ping is enough


class CborDialect:
    """Subprotocol `fanline.v1.cbor`: binary messages."""

    name = "cbor"
    subprotocol = "fanline.v1.cbor"
    opcode = Opcode.BINARY
    is_plain = False

    def decode(self, payload: bytes, visit: Visit = Visit()) -> list[Envelope]:  # noqa: B008  # it is immutable
        return [_command(decode_cbor(payload, MAX_READS))]

    def encode(self, envelope: Envelope) -> bytes:
        return encode_cbor(envelope)

    def follow_up(self, envelope: Envelope) -> bytes | None:
        return None

    def welcome(self, envelope: Envelope, visit: Visit) -> bytes:
        return encode_cbor(envelope)

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        return encode_cbor(reply) if _is_wanted(reply) else None

    def heartbeat(self, time_ms: int) -> bytes | None:
        return None  # the WebSocket ping is enough


def _command(envelope: Envelope) -> Envelope:
    if not envelope.type:
        raise MessageError(ErrorCode.BAD_MESSAGE, "the message has no type (`t`)", envelope.id)
    return envelope


def _is_wanted(reply: Envelope) -> bool:
    # A command without an id asks for no answer, but gets an error.
    return reply.type != MessageType.OK or reply.id is not None
