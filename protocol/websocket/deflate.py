"""permessage-deflate (RFC 7692) without context takeover in either direction.

Without a context, a message compresses to the same bytes for every connection: it is compressed once and shared, and a
connection keeps no zlib state (some 300 KB at the default window). The price is a worse ratio on small messages.
"""

import re
import zlib

from fanline.protocol.errors import CloseReason, FrameError

RESPONSE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""The negotiated extension, as the server's answer has it."""
MIN_BYTES = 64
"""Shorter messages are sent uncompressed: deflate would make most of them longer."""

_TAIL = b"\x00\x00\xff\xff"  # section 7.2.1: the end of a sync flush, left out on the wire
_LEVEL = 6
_PARAMETERS = re.compile(r"(client|server)_no_context_takeover|client_max_window_bits(=(\"?)(8|9|1[0-5])\3)?")


def accepts(extensions: str | None) -> bool:
    """Whether a Sec-WebSocket-Extensions header contains an offer of permessage-deflate that RESPONSE can answer.

    Offers with `server_max_window_bits` are passed over: each smaller window would need its own compressed bytes.
    """
    for offer in (extensions or "").split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name == "permessage-deflate" and all(_PARAMETERS.fullmatch(parameter) for parameter in parameters):
            return True
    return False


def compress(payload: bytes) -> bytes:
    """The payload of a compressed message."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_TAIL)


def decompress(payload: bytes, limit: int) -> bytes:
    """The inverse of `compress`. Raises FrameError if it is not deflate or inflates to more than `limit` bytes."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = decompressor.decompress(payload + _TAIL, limit + 1)
    except zlib.error:
        raise FrameError(CloseReason.PROTOCOL_ERROR, "compressed message is not valid deflate data") from None
    if decompressor.unused_data:
        raise FrameError(CloseReason.PROTOCOL_ERROR, "data after the end of a compressed message")
    if len(data) > limit:
        raise FrameError(CloseReason.TOO_BIG, f"message inflates to over {limit} bytes")
    return data
