"""A wire: a dialect, and whether its messages are compressed. Everybody on the same wire is sent the same bytes."""

from fanline.protocol.dialects import Dialect
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import encode_deflated_frame, encode_frame


class Encoding:
    """Finished WebSocket frames of one dialect; made by `encoding_of`, so that identity is equality."""

    __slots__ = ("_encode_frame", "deflated", "dialect")

    def __init__(self, dialect: Dialect, deflated: bool) -> None:
        self.dialect = dialect
        self.deflated = deflated
        self._encode_frame = encode_deflated_frame if deflated else encode_frame

    def frame(self, payload: bytes) -> bytes:
        """One message's payload as a frame."""
        return self._encode_frame(self.dialect.opcode, payload)

    def encode(self, envelope: Envelope) -> bytes:
        """An envelope in this dialect's words, as a frame."""
        return self._encode_frame(self.dialect.opcode, self.dialect.encode(envelope))


_encodings: dict[tuple[str, bool], Encoding] = {}


def encoding_of(dialect: Dialect, deflated: bool) -> Encoding:
    """The one wire of its kind."""
    key = (dialect.name, deflated)
    if key not in _encodings:
        _encodings[key] = Encoding(dialect, deflated)
    return _encodings[key]
