"""URLs of NATS, and the pool of servers that are tried in turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.nats.addresses import DEFAULT_PORT, NatsAddress, ServerPool, parse_url, url_of
from fanline.protocol.nats.parser import NatsError

hosts = st.sampled_from(("localhost", "n1", "nats.example", "a-b.c")) | st.ip_addresses().map(str)
ports = st.integers(1, 65535)
secrets = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
logins: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.fixed_dictionaries({}),
    st.fixed_dictionaries({"token": secrets}),
    st.fixed_dictionaries({"user": secrets, "password": st.just("") | secrets}),
)
addresses = st.builds(
    lambda host, port, tls, login: NatsAddress(host, port, tls, **login), hosts, ports, st.booleans(), logins
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://127.0.0.1:4222", NatsAddress("127.0.0.1", 4222)),
        ("localhost", NatsAddress("localhost", DEFAULT_PORT)),
        ("localhost:5222", NatsAddress("localhost", 5222)),
        ("user:p@localhost", NatsAddress("localhost", DEFAULT_PORT, False, "user", "p")),
        ("tls://user:p%40ss@nats.example:443", NatsAddress("nats.example", 443, True, "user", "p@ss")),
        ("nats://user:@h", NatsAddress("h", DEFAULT_PORT, False, "user", "")),
        ("nats://s3cret@[::1]:4222", NatsAddress("::1", 4222, token="s3cret")),
        ("TLS://Nats.Example/", NatsAddress("nats.example", DEFAULT_PORT, True)),
    ],
)
def test_a_url_has_the_address_and_the_credentials(url: str, expected: NatsAddress) -> None:
    assert parse_url(url) == expected


@given(addresses)
def test_a_url_of_an_address_is_read_as_that_address(address: NatsAddress) -> None:
    assert parse_url(url_of(address)) == address


@given(addresses)
def test_an_address_never_shows_its_credentials(address: NatsAddress) -> None:
    assert str(address) == str(NatsAddress(address.host, address.port))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "nats://",
        "nats://:4222",
        "h:notaport",
        "h:99999",
        "h:-1",
        "h:0",
        "",
        "nats://[::1",
        "a:1,b:2",
    ],
)
def test_a_wrong_url_is_refused_with_the_url_in_the_sentence(url: str) -> None:
    with pytest.raises(NatsError, match="not a NATS URL") as caught:
        parse_url(url)
    assert repr(url) in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), max_size=20) | st.text("nats:/@[]%:.1#? ", max_size=12))
def test_any_text_is_a_url_or_a_nats_error(url: str) -> None:
    try:
        address = parse_url(url)
    except NatsError:
        return
    assert address.host
    assert 0 < address.port < 65536


# --- the pool -----------------------------------------------------------------------------------------------------

NAMED = (
    NatsAddress("one.example", 4222, True, token="secret"),
    NatsAddress("two.example", 4223, True, token="other"),
)


def one_round(pool: ServerPool) -> set[tuple[str, int]]:
    return {(server.host, server.port) for server in (pool.next() for _ in range(len(pool)))}


def test_servers_are_tried_in_turn_in_the_order_in_which_they_were_named() -> None:
    pool = ServerPool(NAMED)
    assert [pool.next() for _ in range(5)] == [NAMED[0], NAMED[1], NAMED[0], NAMED[1], NAMED[0]]


def test_a_pool_without_servers_is_refused() -> None:
    with pytest.raises(NatsError, match="no NATS server"):
        ServerPool([])


def test_servers_of_the_cluster_come_after_the_named_ones_with_the_credentials_of_the_first() -> None:
    pool = ServerPool(NAMED)
    pool.tell(["three.example:4222", "two.example:4223"])
    assert len(pool) == 3
    assert [pool.next() for _ in range(3)] == [*NAMED, NAMED[0]._replace(host="three.example")]


@pytest.mark.parametrize(("url", "host"), [("10.0.0.7:4222", "10.0.0.7"), ("[fd00::7]:4222", "fd00::7")])
def test_a_server_told_by_its_ip_address_must_have_a_certificate_for_the_name_that_we_were_given(
    url: str, host: str
) -> None:
    pool = ServerPool(NAMED[:1])
    pool.tell([url])
    pool.next()
    told = pool.next()
    assert (told.host, told.certified_host) == (host, "one.example")
    assert told.tls


def test_a_server_told_by_its_name_must_have_a_certificate_for_it() -> None:
    pool = ServerPool(NAMED[:1])
    pool.tell(["three.example:4222"])
    pool.next()
    assert pool.next().certified_host == "three.example"


def test_what_is_told_replaces_what_was_told_before_and_the_named_ones_stay() -> None:
    pool = ServerPool(NAMED)
    pool.tell(["three.example:1", "four.example:1"])
    pool.tell(["five.example:1"])
    assert one_round(pool) == {("one.example", 4222), ("two.example", 4223), ("five.example", 1)}
    pool.tell([])
    assert one_round(pool) == {("one.example", 4222), ("two.example", 4223)}


def test_a_server_cannot_make_us_send_other_credentials_or_leave_tls() -> None:
    pool = ServerPool(NAMED[:1])
    pool.tell(["nats://evil:word@three.example:4222"])
    pool.next()
    assert pool.next() == NAMED[0]._replace(host="three.example")


told_urls = st.lists(
    st.builds(lambda host, port: str(NatsAddress(host, port)), hosts, ports)
    | st.text(st.characters(codec="utf-8"), max_size=12),
    max_size=6,
)


@given(
    st.lists(addresses, min_size=1, max_size=4, unique_by=lambda address: address[:2]),
    st.lists(told_urls, max_size=4),
    st.integers(0, 9),
)
def test_whatever_is_told_each_round_tries_every_named_server_and_each_server_once(
    named: list[NatsAddress], told: list[list[str]], tried: int
) -> None:
    pool = ServerPool(named)
    for urls in told:
        for _ in range(tried):
            pool.next()
        pool.tell(urls)
    servers = one_round(pool)
    assert len(servers) == len(pool)
    assert {(server.host, server.port) for server in named} <= servers
    known = {(server.host, server.port) for server in named} | {
        (server.host, server.port) for url in (told or [[]])[-1] if (server := _readable(url))
    }
    assert servers == known


def _readable(url: str) -> NatsAddress | None:
    try:
        return parse_url(url)
    except NatsError:
        return None
