"""Envelope v1: the one message format of Fanline, and its two codecs.

An envelope is one map with short keys: strings in JSON, small integers in CBOR (RFC 8949). docs/reference/protocol.md
has the full text, the JSON Schema and the CDDL; tests/vectors has the golden bytes. Unknown keys are ignored. On bad
input, this module raises MessageError and nothing else.

Data that came as JSON is kept as `msgspec.Raw`, the producer's own bytes, already checked, so that it goes out as JSON
without being decoded and encoded again. Data that came as CBOR is a plain Python value. `Envelope.value` is the Python
value of either.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import cbor2
import msgspec
from msgspec import Meta, Raw

from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.extra import check_extra
from fanline.protocol.text import is_name
from fanline.protocol.values import MAX_DEPTH, cbor_value, check_value, not_a_message

VERSION = 1


class MessageType(StrEnum):
    """Every value of `t` in version 1."""

    # client to server
    AUTH = "auth"
    SUB = "sub"
    UNSUB = "unsub"
    ACK = "ack"
    CALL = "call"
    PRESENCE = "presence"
    HISTORY = "history"
    PING = "ping"
    # both ways
    PUB = "pub"
    # server to client
    WELCOME = "welcome"
    GAP = "gap"
    JOIN = "join"
    LEAVE = "leave"
    OK = "ok"
    ERR = "err"
    PONG = "pong"
    RECONNECT = "reconnect"
    BYE = "bye"


# attribute: (JSON key, CBOR key), in wire order
KEYS: dict[str, tuple[str, int]] = {
    "version": ("v", 0),
    "type": ("t", 1),
    "channel": ("c", 2),
    "offset": ("o", 3),
    "previous": ("p", 4),
    "epoch": ("ep", 5),
    "id": ("i", 6),
    "event": ("e", 7),
    "data": ("d", 8),
    "sender": ("u", 9),
    "time": ("ts", 10),
    "key": ("k", 11),
    "priority": ("pr", 12),
    "ttl": ("ttl", 13),
    "extra": ("x", 14),
    "excluded": ("n", 15),
    "deduplication_id": ("dd", 16),
}

MAX_TEXT = 128  # characters of every text except the channel
MIN_DEDUPLICATION_ID = 16  # characters: a shorter one would soon be used twice
_Short = Annotated[str, Meta(max_length=MAX_TEXT)]
_Long = Annotated[str, Meta(max_length=1024)]  # of what is checked later, when the answer can name the command
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Envelope(
    msgspec.Struct,
    tag_field="v",
    tag=VERSION,
    omit_defaults=True,
    rename={name: keys[0] for name, keys in KEYS.items()},
    gc=False,  # its data is a tree, so it is never part of a cycle, and a worker keeps very many
):
    """One message. A field that is absent on the wire is None here ("" for `type`)."""

    type: _Short = ""
    channel: _Long | None = None
    offset: _Count | None = None
    """Position in the channel, given by its JetStream stream."""
    previous: _Count | None = None
    """Offset of the message before this one in the channel."""
    epoch: _Short | None = None
    """Changes when the stream is recreated: offsets of another epoch mean nothing."""
    id: _Short | None = None
    """Of a message: the id that its producer or the server has given it. Of a command: the answer has the same id."""
    event: _Short | None = None
    data: Any = None
    sender: _Short | None = None
    time: _Count | None = None
    """Unix milliseconds."""
    key: _Short | None = None
    """Conflation key: in a backlogged outbox a newer message of the same key replaces this one."""
    priority: Annotated[int, Meta(ge=0, le=9)] | None = None
    ttl: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    """Seconds after `time` at which the message is no longer delivered."""
    extra: dict[str, Any] | None = None
    """Small attributes besides the data (extra.py)."""
    excluded: _Short | None = None
    """Public id of the connection that does not get the message, usually its sender's. Hubs never send it on."""
    deduplication_id: _Long | None = None
    """Of a `pub` of a client: a durable channel stores the message only once, however often it is sent."""

    @property
    def value(self) -> Any:
        """`data` as a Python value, whichever codec it came in. Decoded on every call."""
        return msgspec.json.decode(self.data) if isinstance(self.data, Raw) else self.data


class _JsonEnvelope(Envelope):
    data: Raw = None  # type: ignore[assignment]  # Raw keeps the bytes; a union with None would not be Raw


_NAMES = ("id", "event", "sender", "key", "epoch", "excluded")
_json_decoder = msgspec.json.Decoder(_JsonEnvelope)
_json_encoder = msgspec.json.Encoder()
_json_value = msgspec.json.Decoder()
_JSON_NAME_OF = {number: name for name, number in KEYS.values()}
_CBOR_KEY_OF = {attribute: number for attribute, (_, number) in KEYS.items() if attribute != "version"}


def encode_json(envelope: Envelope) -> bytes:
    """JSON text in UTF-8 with the keys in wire order; byte strings become base64 text, NaN and infinities null."""
    return _json_encoder.encode(envelope)


def decode_json(payload: bytes) -> Envelope:
    """Decode one JSON envelope. Its `data` is checked and kept as bytes. Raises MessageError(BAD_MESSAGE)."""
    try:
        envelope = _json_decoder.decode(_utf8(payload))
        if envelope.data is not None:
            check_value(_json_value.decode(envelope.data))
        if envelope.extra is not None:
            check_value(envelope.extra)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise not_a_message(error) from None
    return envelope


def encode_cbor(envelope: Envelope) -> bytes:
    """CBOR map with integer keys in wire order, definite lengths, shortest integers."""
    return cbor2.dumps(_cbor_map(envelope), default=_encode_nested)


def _cbor_map(envelope: Envelope) -> dict[int, Any]:
    fields: dict[int, Any] = {0: VERSION}
    for attribute, number in _CBOR_KEY_OF.items():
        value = getattr(envelope, attribute)
        if value is not None:
            fields[number] = _json_value.decode(value) if isinstance(value, Raw) else value
    return fields


def _encode_nested(encoder: cbor2.CBOREncoder, envelope: Envelope) -> None:
    """An envelope in the data of another one."""
    encoder.encode(_cbor_map(envelope))


def nested(value: Any) -> Envelope:
    """An envelope in the data of another one, decoded from either codec or not yet encoded. Raises
    msgspec.ValidationError.
    """
    if isinstance(value, Envelope):
        return value
    if isinstance(value, dict) and 0 in value:
        value = {_JSON_NAME_OF[key]: field for key, field in value.items() if key in _JSON_NAME_OF}
    return msgspec.convert(value, Envelope)


def decode_cbor(payload: bytes, reads: int | None = None) -> Envelope:
    """Decode one CBOR envelope. Raises MessageError(BAD_MESSAGE) for whatever `cbor_value` refuses, too."""
    value = cbor_value(payload, MAX_DEPTH + 1, reads)  # the envelope's own map is not part of `d`
    if not isinstance(value, dict):
        raise MessageError(ErrorCode.BAD_MESSAGE, "a CBOR message is a map with integer keys")
    return _from_map(value)


def from_producer(payload: bytes) -> Envelope:
    """The envelope that a producer published: a JSON or CBOR map with `v`, or any other value, which becomes the `d`.

    CBOR maps are recognised by their first byte (0xA0-0xBF, which never starts a JSON text). The result has the type
    `pub`; an envelope of another type is refused. Raises MessageError(BAD_MESSAGE).
    """
    if b"\xa0" <= payload[:1] <= b"\xbf":
        value = cbor_value(payload, MAX_DEPTH + 1)
        if 0 in value:
            return _as_published(_from_map(value))
        check_value(value)
        return Envelope(MessageType.PUB, data=value)
    if not payload.startswith(b'{"v":1,'):  # the common case is decoded once
        value = _any_json(payload)
        if not isinstance(value, dict) or "v" not in value:
            check_value(value)
            return Envelope(MessageType.PUB, data=Raw(payload))
    return _as_published(decode_json(payload))


def check_texts(envelope: Envelope) -> None:
    """Refuse texts that every receiver would refuse. Raises MessageError(BAD_MESSAGE) with the name of the field."""
    for name in _NAMES:
        text = getattr(envelope, name)
        if text is not None and len(text) > MAX_TEXT:
            raise MessageError(ErrorCode.BAD_MESSAGE, f"{name}: {len(text)} characters, at most {MAX_TEXT}")
    check_names(envelope)
    if envelope.deduplication_id is not None:
        check_deduplication_id(envelope.deduplication_id)


def check_deduplication_id(text: str) -> None:
    """Refuse an id that is too short to be unique, too long, or not printable. Raises MessageError(BAD_MESSAGE)."""
    if not (MIN_DEDUPLICATION_ID <= len(text) <= MAX_TEXT and text.isprintable()):
        rule = f"a de-duplication id has {MIN_DEDUPLICATION_ID} to {MAX_TEXT} printable characters, as a UUID has"
        raise MessageError(ErrorCode.BAD_MESSAGE, f"dd: {rule}")


def check_names(envelope: Envelope) -> None:
    """Refuse control characters in all texts but the data, and extra attributes over their bounds. Raises
    MessageError(BAD_MESSAGE) with the name of the field.

    Not a part of decoding: a client reads whatever its server has accepted.
    """
    # On the hot path of every worker: no loop and no call but isprintable, which is true of nearly all names.
    if (
        ((text := envelope.id) is None or text.isprintable())
        and ((text := envelope.event) is None or text.isprintable())
        and ((text := envelope.sender) is None or text.isprintable())
        and ((text := envelope.key) is None or text.isprintable())
        and ((text := envelope.epoch) is None or text.isprintable())
        and envelope.extra is None
        and envelope.excluded is None
    ):
        return
    for name in _NAMES:
        if not is_name(getattr(envelope, name) or ""):
            raise MessageError(ErrorCode.BAD_MESSAGE, f"{name}: control characters are not allowed in it")
    if envelope.extra is not None:
        check_extra(envelope.extra)


def _as_published(envelope: Envelope) -> Envelope:
    if envelope.type not in ("", MessageType.PUB):
        raise MessageError(ErrorCode.BAD_MESSAGE, f"a producer publishes `pub` envelopes, not `{envelope.type}`")
    check_names(envelope)
    envelope.deduplication_id = None  # what counts is the header Nats-Msg-Id
    envelope.type = MessageType.PUB
    return envelope


def _any_json(payload: bytes) -> Any:
    try:
        return _json_value.decode(_utf8(payload))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise not_a_message(error) from None


def _from_map(fields: Mapping[Any, Any]) -> Envelope:
    named = {_JSON_NAME_OF[key]: value for key, value in fields.items() if key in _JSON_NAME_OF}
    try:
        return msgspec.convert(named, Envelope)
    except msgspec.ValidationError as error:
        raise not_a_message(error) from None


def _utf8(payload: bytes) -> bytes:
    # msgspec does not check the strings inside Raw, and one bad byte would end the connection of every browser.
    if not payload.isascii():
        payload.decode()
    return payload
