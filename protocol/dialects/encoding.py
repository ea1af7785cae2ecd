"""Encodings: a dialect, with or without compression. All connections of one encoding are sent the same bytes."""

from fanline.protocol.copies import as_delivered
from fanline.protocol.dialects import CBOR, Dialect
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import encode_deflated_frame, encode_frame


class Encoding:
    """Makes finished WebSocket frames. Comes from `encoding_of` alone, so that equal encodings are the same object."""

    __slots__ = ("_encode_frame", "costly", "deflated", "dialect")

    def __init__(self, dialect: Dialect, deflated: bool) -> None:
        self.dialect = dialect
        self.deflated = deflated
        self.costly = deflated or dialect is CBOR
        """Whether a frame takes much longer to make than to copy, as data of producers is JSON as a rule."""
        self._encode_frame = encode_deflated_frame if deflated else encode_frame

    def frame(self, payload: bytes) -> bytes:
        """The frame of a message that is already in this dialect."""
        return self._encode_frame(self.dialect.opcode, payload)

    def encode(self, envelope: Envelope) -> bytes:
        """The frame of an envelope, without the keys that are only for hubs; followed by a second frame if the dialect
        says so.
        """
        if envelope.extra is not None or envelope.excluded is not None:
            envelope = as_delivered(envelope)
        frame = self._encode_frame(self.dialect.opcode, self.dialect.encode(envelope))
        more = self.dialect.follow_up(envelope) if self.dialect.is_plain else None
        return frame if more is None else frame + self._encode_frame(self.dialect.opcode, more)


_encodings: dict[tuple[str, bool], Encoding] = {}


def encoding_of(dialect: Dialect, deflated: bool) -> Encoding:
    """The one encoding of this dialect, with or without compression."""
    key = (dialect.name, deflated)
    if key not in _encodings:
        _encodings[key] = Encoding(dialect, deflated)
    return _encodings[key]
