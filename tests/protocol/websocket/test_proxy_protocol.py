"""Headers of the PROXY protocol, versions 1 and 2."""

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.websocket.proxy_protocol import MAX_SIZE, ProxyHeader, ProxyHeaderError, ProxyHeaderReader

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def header(first: int, second: int, addresses: bytes) -> bytes:
    return SIGNATURE + bytes((first, second)) + struct.pack("!H", len(addresses)) + addresses


def ip_header(source: str, tlvs: bytes = b"") -> bytes:
    packed = ip_address(source).packed
    family = 0x11 if len(packed) == 4 else 0x21
    return header(0x21, family, packed + bytes(len(packed)) + struct.pack("!HH", 56324, 443) + tlvs)


def read(data: bytes, behind: bytes = b"", piece: int = 1 << 20) -> ProxyHeader | None:
    """The header, read as from a socket that has `behind` after it; what was not read must be `behind`."""
    stream, reader = data + behind, ProxyHeaderReader()
    while stream:
        wanted = min(reader.wanted, piece)
        assert wanted > 0
        found = reader.feed(stream[:wanted])
        stream = stream[wanted:]
        if found is not None:
            assert stream == behind
            return found
    return None


GOOD = [
    (ip_header("192.0.2.1"), "192.0.2.1"),
    (ip_header("2001:db8::1"), "2001:db8::1"),
    (ip_header("192.0.2.1", b"\x04\x00\x03abc" + b"\x01\x00\x02h2"), "192.0.2.1"),
    (header(0x21, 0x12, bytes((192, 0, 2, 1)) + bytes(8)), "192.0.2.1"),  # datagrams, as of QUIC
    (header(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), None),
    (header(0x21, 0x00, b"anything"), None),
    (header(0x20, 0x00, b""), None),
    (header(0x20, 0x11, b"any"), None),  # LOCAL: whatever it says must be ignored
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", "2001:db8::1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\n", None),
]
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n\r\n\x00\r\nQUIT!",
    header(0x11, 0x11, bytes(12)),  # version 1 in the form of version 2
    header(0x31, 0x11, bytes(12)),
    header(0x22, 0x11, bytes(12)),  # an unknown command
    header(0x21, 0x41, bytes(300)),  # an unknown family
    header(0x21, 0x13, bytes(12)),  # an unknown transport
    header(0x21, 0x11, bytes(11)),
    header(0x21, 0x21, bytes(35)),
    header(0x21, 0x31, bytes(215)),
    SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_SIZE),
    b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
    b"PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.256 56324 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 -1 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 056 443\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\nGET",
    b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
]


@pytest.mark.parametrize(("data", "address"), GOOD)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_header_names_the_client_and_nothing_behind_it_is_read(data: bytes, address: str | None, piece: int) -> None:
    assert read(data, b"GET /ws HTTP/1.1\r\n\r\n", piece) == ProxyHeader(address)


@pytest.mark.parametrize("data", BAD)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_what_is_no_header_is_refused(data: bytes, piece: int) -> None:
    with pytest.raises(ProxyHeaderError):
        read(data, b"x" * 300, piece)


@pytest.mark.parametrize("data", [data for data, _ in GOOD])
def test_every_prefix_of_a_header_is_waited_for(data: bytes) -> None:
    for size in range(len(data)):
        assert read(data[:size]) is None


@given(st.ip_addresses(), st.binary(max_size=200), st.binary(max_size=50), st.integers(1, 300))
def test_whatever_address_a_proxy_names_is_the_clients(address: object, tlvs: bytes, behind: bytes, piece: int) -> None:
    assert read(ip_header(str(address), tlvs), behind, piece) == ProxyHeader(str(address))


@given(st.sampled_from([b"", SIGNATURE, b"PROXY ", b"PROXY TCP4 ", SIGNATURE + b"\x21"]), st.binary(max_size=300))
def test_garbage_is_waited_for_or_refused(start: bytes, garbage: bytes) -> None:
    data, reader = start + garbage, ProxyHeaderReader()
    try:
        while data:
            piece, data = data[: reader.wanted], data[reader.wanted :]
            if reader.feed(piece) is not None:
                return
            assert reader.wanted > 0
    except ProxyHeaderError:
        pass


def test_a_header_may_be_as_long_as_is_said_and_no_longer() -> None:
    assert read(ip_header("192.0.2.1", bytes(MAX_SIZE - 28))) == ProxyHeader("192.0.2.1")
    with pytest.raises(ProxyHeaderError, match="4097 bytes"):
        read(ip_header("192.0.2.1", bytes(MAX_SIZE - 27)))
