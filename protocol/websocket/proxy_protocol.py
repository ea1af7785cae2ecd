"""The PROXY protocol: the address of a client, which a proxy puts before everything else on a connection.

Source: "The PROXY protocol, Versions 1 & 2", HAProxy, section 2. Version 2 is binary, version 1 one line of text (what
nginx sends). A reader takes the header and not one byte more, since TLS may begin right after it.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from fanline.protocol.errors import ProtocolError

MAX_SIZE = 4096
"""Bytes that a header may have, with all its TLVs: far more than any known proxy sends (the format allows 65,551)."""
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16  # bytes of version 2 before the addresses
_LOCAL, _PROXY = 0, 1  # commands
_FAMILIES = {0x00: 0, 0x10: 12, 0x20: 36, 0x30: 216}  # upper half of the byte -> bytes of both addresses and ports
_TRANSPORTS = (0, 1, 2)  # lower half: unspecified, stream, datagram
_LINE_MIN = len(b"PROXY UNKNOWN\r\n")
_LINE_MAX = 107  # with its end
_VERSIONS = {b"TCP4": 4, b"TCP6": 6}


class ProxyHeaderError(ProtocolError):
    """A proxy sent no header, or an invalid one; str() says what is wrong with it."""


class ProxyHeader(NamedTuple):
    """What a header says."""

    address: str | None
    """The client's; None if the proxy speaks for itself (LOCAL, as a health check does), or names no IP address (UNIX
    sockets, UNKNOWN): then the address of the connection stands.
    """


class ProxyHeaderReader:
    """Collects one header from chunks of any size."""

    def __init__(self) -> None:
        self._data = b""

    @property
    def wanted(self) -> int:
        """How many bytes may be read now, so that nothing behind the header is taken."""
        if self._data.startswith(_SIGNATURE):
            return (self._size() if len(self._data) >= _FIXED else _FIXED) - len(self._data)
        if len(self._data) < len(_SIGNATURE):
            return len(_SIGNATURE) - len(self._data)
        return max(_LINE_MIN - len(self._data), 1 if self._data.endswith(b"\r") else 2)

    def feed(self, data: bytes) -> ProxyHeader | None:
        """The header once it is complete, None before; `data` holds `wanted` bytes at most. ProxyHeaderError."""
        self._data += data
        read = self._data
        if read.startswith(_SIGNATURE):
            return _binary(read) if len(read) >= _FIXED and len(read) >= self._size() else None
        if read.startswith(b"PROXY "):
            return self._line()
        if _SIGNATURE.startswith(read) or b"PROXY ".startswith(read):
            return None
        raise ProxyHeaderError("it does not begin with a header of the PROXY protocol")

    def _size(self) -> int:
        size = _FIXED + int.from_bytes(self._data[14:_FIXED], "big")
        if size > MAX_SIZE:
            raise ProxyHeaderError(f"its header has {size} bytes, and at most {MAX_SIZE} are read")
        return size

    def _line(self) -> ProxyHeader | None:
        if self._data.endswith(b"\r\n"):
            return _text(self._data)
        if len(self._data) >= _LINE_MAX or b"\n" in self._data:
            raise ProxyHeaderError(f"its header is not one line of at most {_LINE_MAX} bytes")
        return None


def _binary(header: bytes) -> ProxyHeader:
    """Version 2, section 2.2. What follows the addresses are TLVs, which are skipped."""
    version, command = header[12] >> 4, header[12] & 0x0F
    if version != 2:
        raise ProxyHeaderError(f"its header has version {version} in the form of version 2")
    if command == _LOCAL:
        return ProxyHeader(None)
    if command != _PROXY:
        raise ProxyHeaderError(f"its header has the unknown command {command}")
    family, transport = header[13] & 0xF0, header[13] & 0x0F
    if family not in _FAMILIES or transport not in _TRANSPORTS:
        raise ProxyHeaderError(f"its header has the unknown address family or transport 0x{header[13]:02x}")
    if len(header) - _FIXED < _FAMILIES[family]:
        raise ProxyHeaderError("its header is too short for its addresses")
    if family == 0x10:
        return ProxyHeader(str(IPv4Address(header[16:20])))
    if family == 0x20:
        return ProxyHeader(str(IPv6Address(header[16:32])))
    return ProxyHeader(None)


def _text(line: bytes) -> ProxyHeader:
    """Version 1, section 2.1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`."""
    words = line[:-2].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(None)
    if words[1] not in _VERSIONS or len(words) != 6 or not all(map(_is_port, words[4:])):
        raise ProxyHeaderError(f"its header cannot be read: {_shown(line[:-2])}")
    source, _ = (_address(word, _VERSIONS[words[1]]) for word in words[2:4])
    return ProxyHeader(str(source))


def _address(word: bytes, version: int) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(word.decode("ascii"))
    except ValueError:
        address = None
    if address is None or address.version != version or b"%" in word:
        raise ProxyHeaderError(f"its header has a bad address: {_shown(word)}")
    return address


def _is_port(word: bytes) -> bool:
    return word.isdigit() and len(word) <= 5 and int(word) <= 65535 and (word == b"0" or word[0] != ord("0"))


def _shown(word: bytes) -> str:
    return repr(word)[2:-1]  # control characters are escaped
