"""Pings by which a client acknowledges without knowing it: the pong repeats what the ping named.

A ping behind a message of an inbox names the message's offset and its channel. TCP keeps the order, so a client that
answers it has been sent everything before it, and its library has read it.
"""

from hashlib import blake2s

from fanline.protocol.websocket.frames import Opcode, encode_frame

_MARK = b"a"
_OFFSET_BYTES = 8
_LENGTH = 17


def ack_ping(channel: str, offset: int) -> bytes:
    """The frame that asks for an acknowledgement of everything up to an offset."""
    return encode_frame(Opcode.PING, _MARK + offset.to_bytes(_OFFSET_BYTES, "big") + _digest(channel))


def acknowledged_offset(pong: bytes, channel: str) -> int | None:
    """The offset that a pong acknowledges on a channel; None if it is about another channel, or another ping."""
    if len(pong) != _LENGTH or pong[:1] != _MARK or pong[1 + _OFFSET_BYTES :] != _digest(channel):
        return None
    return int.from_bytes(pong[1 : 1 + _OFFSET_BYTES], "big")


def _digest(channel: str) -> bytes:
    return blake2s(channel.encode(), digest_size=8).digest()
