"""WebSocket frames (RFC 6455 section 5): finished bytes out, checked messages in.

Server frames are not masked, so one `encode_frame` serves every subscriber. `FrameReader` is the whole inbound side of
either role. It holds bytes only while a message is incomplete, so a connection needs a reader only then
(docs/explanation/decisions/0003-own-frame-reader.md). However a message is cut into reads and fragments, its bytes are
looked at, and copied, a fixed number of times.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from fanline.protocol.errors import CloseReason, FrameError
from fanline.protocol.websocket import deflate


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class WebSocketMessage(NamedTuple):
    """A complete message or control frame: TEXT (valid UTF-8), BINARY, CLOSE, PING or PONG, unmasked."""

    opcode: Opcode
    payload: bytes


_FIN = 0x80
_RSV = 0x70
_COMPRESSED = 0x40  # RSV1 on the first frame of a message (RFC 7692 section 7.2.2)
_MASKED = 0x80
_OPCODES = {int(opcode): opcode for opcode in Opcode}
_CONTROL_LIMIT = 125  # RFC 6455 section 5.5
_EXTENDED = {126: 2, 127: 8}  # length in the second byte -> size of the field with the real length


def encode_frame(opcode: Opcode, payload: bytes) -> bytes:
    """One final, unmasked frame: what a server sends."""
    return _head(opcode, len(payload), 0) + payload


def encode_deflated_frame(opcode: Opcode, payload: bytes) -> bytes:
    """The same for a connection that negotiated permessage-deflate; a short payload is not compressed."""
    if len(payload) < deflate.MIN_BYTES:
        return encode_frame(opcode, payload)
    frame = encode_frame(opcode, deflate.compress(payload))
    return bytes((frame[0] | _COMPRESSED,)) + frame[1:]


def encode_masked_frame(opcode: Opcode, payload: bytes, mask: bytes, *, final: bool = True) -> bytes:
    """One masked frame: what a client sends. `mask` is 4 fresh random bytes (RFC 6455 section 5.3)."""
    head = _head(opcode, len(payload), _MASKED)
    if not final:
        head = bytes((head[0] & ~_FIN,)) + head[1:]
    return head + mask + apply_mask(payload, mask)


def encode_close(reason: CloseReason, text: str | None = None) -> bytes:
    """A server's close frame. A text that does not fit is cut, on a character boundary."""
    shown = (reason.text if text is None else text).encode()[: _CONTROL_LIMIT - 2].decode(errors="ignore")
    return encode_frame(Opcode.CLOSE, struct.pack("!H", reason.code) + shown.encode())


def decode_close(payload: bytes) -> tuple[int, str]:
    """Code and text of a close frame's payload; 1005 and "" if it is empty (RFC 6455 section 7.1.5)."""
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise FrameError(CloseReason.PROTOCOL_ERROR, "close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) and not 3000 <= code <= 4999:
        raise FrameError(CloseReason.PROTOCOL_ERROR, f"close code {code} may not be sent")
    return code, _checked_text(payload[2:]).decode()


def apply_mask(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    """XOR with the repeated mask, its own inverse. Done on one big integer, which is a single pass in C.

    The mask goes on beyond the payload, so that the result is large as well: Python 3.14 keeps small integers for reuse
    with the memory that they were made in, and a payload of zeros would leave there as much as the message had.
    """
    size = len(payload)
    stream = mask * (size // 4 + 2)
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")
    return mixed.to_bytes(len(stream), "little")[:size]


class FrameReader:
    """Bytes of one peer in, complete messages out, in order.

    `limit` bounds a message in bytes, over all its fragments and after it is inflated. An empty fragment counts as one
    byte, so that a message of endless empty fragments meets the limit, too. `from_client` says which role sent the
    bytes: a client must mask, a server must not. `deflated`: permessage-deflate was negotiated.
    """

    __slots__ = (
        "_buffer",
        "_compressed",
        "_deflated",
        "_fragments",
        "_from_client",
        "_limit",
        "_needed",
        "_opcode",
        "_spent",
        "frames",
        "inflated",
    )

    def __init__(self, limit: int, *, from_client: bool = True, deflated: bool = False) -> None:
        self._limit = limit
        self._from_client = from_client
        self._deflated = deflated
        self._compressed = False  # the message under way
        self._buffer: bytes | bytearray = b""  # or a frame that is incomplete, which grows in place
        self._needed = 0  # bytes of it, before which there is no need to look at it again
        self._opcode: Opcode | None = None  # of the fragmented message under way
        self._fragments = bytearray()
        self._spent = 0
        self.frames = 0
        """Frames that the last `feed` took, fragments and control frames among them."""
        self.inflated = 0
        """Bytes by which the messages of the last `feed` grew when they were inflated."""

    @property
    def idle(self) -> bool:
        """True if no message is incomplete: the reader can be dropped."""
        return not self._buffer and self._opcode is None

    def feed(self, data: bytes) -> Iterator[WebSocketMessage]:
        """Yield the messages that `data` completes. Raises FrameError at the first bad byte, after the good messages.

        The iterator must be exhausted before the next call.
        """
        self.frames = self.inflated = 0
        buffer: bytes | bytearray = data
        if self._buffer:
            buffer = self._buffer
            buffer += data
            if len(buffer) < self._needed:
                return
        position = 0
        while (parsed := self._frame(buffer, position)) is not None:
            first, opcode, payload, position = parsed
            self.frames += 1
            message = self._collect(first, opcode, payload)
            if message is not None:
                yield message
        self._buffer = bytearray(buffer[position:]) if position < len(buffer) else b""

    def _frame(self, buffer: bytes | bytearray, start: int) -> tuple[int, Opcode, bytes, int] | None:
        """First byte, opcode, payload and end of the frame at `start`; None while it is incomplete."""
        self._needed = 2
        if len(buffer) < start + 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        opcode = self._check_head(first, second)
        short = second & 0x7F
        body = start + 2 + _EXTENDED.get(short, 0)
        if body > len(buffer):
            self._needed = body - start
            return None
        size = short if short < 126 else _extended_size(buffer[start + 2 : body])
        if opcode < Opcode.CLOSE and size + self._spent > self._limit:
            raise FrameError(CloseReason.TOO_BIG, f"message over {self._limit} bytes")
        mask_size = 4 if self._from_client else 0
        end = body + mask_size + size
        if end > len(buffer):
            self._needed = end - start
            return None
        payload = buffer[body + mask_size : end]
        return first, opcode, apply_mask(payload, buffer[body : body + 4]) if mask_size else bytes(payload), end

    def _check_head(self, first: int, second: int) -> Opcode:
        opcode = _OPCODES.get(first & 0x0F)
        if opcode is None:
            raise FrameError(CloseReason.PROTOCOL_ERROR, f"unknown opcode {first & 0x0F}")
        allowed = _COMPRESSED if self._deflated and opcode in (Opcode.TEXT, Opcode.BINARY) else 0
        if first & _RSV & ~allowed:
            raise FrameError(CloseReason.PROTOCOL_ERROR, "reserved bits are set, but no extension was negotiated")
        if bool(second & _MASKED) != self._from_client:
            raise FrameError(
                CloseReason.PROTOCOL_ERROR,
                "client frames must be masked" if self._from_client else "server frames must not be masked",
            )
        if opcode >= Opcode.CLOSE and (not first & _FIN or second & 0x7F > _CONTROL_LIMIT):
            raise FrameError(CloseReason.PROTOCOL_ERROR, "control frame fragmented or over 125 bytes")
        return opcode

    def _collect(self, first: int, opcode: Opcode, payload: bytes) -> WebSocketMessage | None:
        """Add one frame to its message (RFC 6455 section 5.4); the message once it is complete."""
        if opcode >= Opcode.CLOSE:
            return WebSocketMessage(opcode, payload)
        if (opcode is Opcode.CONTINUATION) != (self._opcode is not None):
            raise FrameError(
                CloseReason.PROTOCOL_ERROR,
                "continuation without a message" if self._opcode is None else "new message inside a fragmented one",
            )
        if self._opcode is None:
            self._compressed = bool(first & _COMPRESSED)
            if first & _FIN:
                return self._whole(opcode, payload)
            self._opcode = opcode
        self._fragments += payload
        self._spent += len(payload) or 1
        if not first & _FIN:
            return None
        opcode, whole = self._opcode, bytes(self._fragments)
        self._opcode, self._fragments, self._spent = None, bytearray(), 0
        return self._whole(opcode, whole)

    def _whole(self, opcode: Opcode, payload: bytes) -> WebSocketMessage:
        if self._compressed:
            sent, payload = len(payload), deflate.decompress(payload, self._limit)
            self.inflated += max(0, len(payload) - sent)
        return WebSocketMessage(opcode, _checked_text(payload) if opcode is Opcode.TEXT else payload)


def _head(opcode: Opcode, size: int, masked: int) -> bytes:
    if size < 126:
        return bytes((_FIN | opcode, masked | size))
    if size < 65536:
        return struct.pack("!BBH", _FIN | opcode, masked | 126, size)
    return struct.pack("!BBQ", _FIN | opcode, masked | 127, size)


def _extended_size(digits: bytes | bytearray) -> int:
    size = int.from_bytes(digits, "big")
    if size < 126 or (len(digits) == 8 and not 65536 <= size < 2**63):
        raise FrameError(CloseReason.PROTOCOL_ERROR, "frame length not in its shortest form")
    return size


def _checked_text(payload: bytes) -> bytes:
    if not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(CloseReason.INVALID_UTF8) from None
    return payload
