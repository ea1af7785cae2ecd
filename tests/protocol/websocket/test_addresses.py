"""The client's address behind proxies: only the words of our own proxies count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.websocket.addresses import Networks, _read, client_address, is_loopback, read_address

PROXIES = Networks(["10.0.0.0/8", "127.0.0.1", "fd00::/8"])


def behind(peer: str, forwarded: str | None) -> str:
    return client_address(peer, {} if forwarded is None else {"x-forwarded-for": forwarded}, PROXIES)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.5", None, "203.0.113.5"),
        ("203.0.113.5", "198.51.100.1", "203.0.113.5"),  # a client's own word
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.9", "198.51.100.1"),  # the first was invented
        ("10.0.0.1", "127.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, rubbish", "10.0.0.1"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_one_of_our_proxies(
    peer: str, forwarded: str | None, client: str
) -> None:
    assert behind(peer, forwarded) == client


@given(st.ip_addresses().map(str), st.text(max_size=60))
def test_what_a_client_invents_never_changes_the_address_that_a_proxy_saw(client: str, invented: str) -> None:
    if client in PROXIES or read_address(client) is None:
        return
    assert behind("10.0.0.1", f"{invented},{client}") == str(read_address(client))


def test_a_text_that_is_too_long_for_an_address_is_not_remembered() -> None:
    before = _read.cache_info().currsize
    assert read_address("1.2.3.4" + " " * 200) is None
    assert _read.cache_info().currsize == before
    assert str(read_address("[fe80:0000:0000:0000:0000:0000:255.255.255.255%interface0]:65535")) == "fe80::ffff:ffff"


def test_networks_hold_what_they_say() -> None:
    assert "10.1.2.3" in PROXIES
    assert "11.1.2.3" not in PROXIES
    assert "::ffff:10.1.2.3" in PROXIES
    assert "rubbish" not in PROXIES
    assert not Networks([])
    with pytest.raises(ValueError, match=r"10\.0\.0"):
        Networks(["10.0.0"])


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False), ("localhost", False)],
)
def test_loopback_is_an_address_and_no_name(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
