"""Which `Host` and `Origin` may open a WebSocket: a page of another origin never, a program always."""

import re

import pytest

from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request
from fanline.protocol.websocket.origins import HostRules

RULES = HostRules(["App.example", "[2001:db8::1]"], ["https://app.example", "https://Other.example:8443", "app://-"])


def refused(host: str | None, origin: str | None = None, own_address: str = "127.0.0.1") -> tuple[int, str] | None:
    headers = {"host": host, "origin": origin}
    request = Request("GET", "/ws", "", "1.1", {key: text for key, text in headers.items() if text is not None}, b"")
    try:
        RULES.check(request, own_address)
    except HttpError as error:
        return error.status, str(error)
    return None


@pytest.mark.parametrize(
    "host",
    """localhost localhost:8080 LOCALHOST:1 localhost. localhost: 127.0.0.1 127.0.0.1:8080 127.8.9.10:1 [::1] [::1]:8080
    app.example app.example:443 APP.EXAMPLE. [2001:db8::1]:80""".split(),
)
def test_loopback_names_and_those_of_the_setting_are_accepted_with_any_port(host: str) -> None:
    assert refused(host) is None


def test_the_address_of_the_connection_is_accepted_as_no_name_can_be_made_to_resolve_to_another_one() -> None:
    assert refused("192.168.1.5:8080", own_address="192.168.1.5") is None
    assert refused("[FD00::5]:8080", own_address="fd00::5") is None
    assert refused("192.168.1.6:8080", own_address="192.168.1.5") is not None


@pytest.mark.parametrize(
    "host",
    """evil.example evil.example:8080 localhost.evil.example 127.0.0.1.evil.example 10.0.0.1 0.0.0.0 [::2] xapp.example
    app.example.evil 127.1 2130706433 0x7f.0.0.1""".split(),
)
def test_another_name_is_refused_with_the_setting_that_would_allow_it(host: str) -> None:
    answer = refused(host)
    assert answer is not None
    assert answer[0] == 403
    assert "setting hosts" in answer[1]
    assert host.partition(":")[0].strip("[]") in answer[1]


@pytest.mark.parametrize("host", ["", "a b", "a@localhost", "localhost/x", "x:y", "\x1b[31m", "[::1", "a,b"])
def test_what_is_no_host_is_refused_without_being_repeated(host: str) -> None:
    assert refused(host) == (400, "Host is not a host name with or without a port")


def test_without_a_host_the_upgrade_decides() -> None:
    assert refused(None) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", None),
        ("localhost:8080", "http://localhost:8080"),
        ("localhost:8080", "https://LOCALHOST:8080"),
        ("app.example", "https://app.example"),
        ("app.example", "http://app.example"),
        ("app.example:443", "https://app.example"),
        ("app.example", "https://app.example:443"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("localhost:8080", "https://app.example"),
        ("localhost:8080", "https://app.example:443"),
        ("localhost:8080", "https://other.example:8443"),
        ("localhost:8080", "app://-"),
    ],
)
def test_a_program_a_page_of_this_server_and_a_page_of_the_setting_may_connect(host: str, origin: str | None) -> None:
    assert refused(host, origin) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "https://evil.example"),
        ("localhost:8080", "http://localhost:3000"),
        ("localhost:8080", "http://localhost"),
        ("localhost", "http://localhost:8080"),
        ("localhost:8080", "http://127.0.0.1:8080"),
        ("app.example:8080", "https://app.example.evil"),
        ("localhost:8080", "http://other.example:8443"),
        ("localhost:8080", "https://other.example"),
        ("localhost:8080", "https://localhost:8080.evil.example"),
        ("localhost:8080", "http://localhost:8080 http://localhost:8080"),
        ("localhost:8080", "http://localhost:8080/"),
        ("localhost:8080", "localhost:8080"),
        ("localhost:8080", "*"),
        ("localhost:8080", ""),
    ],
)
def test_a_page_of_another_origin_is_refused_with_the_setting_that_would_allow_it(host: str, origin: str) -> None:
    answer = refused(host, origin)
    assert answer is not None
    assert answer[0] == 403
    assert "setting origins" in answer[1]
    assert origin in answer[1]


def test_an_origin_of_null_is_refused_and_cannot_be_allowed() -> None:
    answer = refused("localhost:8080", "null")
    assert answer is not None
    assert answer[0] == 403
    assert "setting origins" in answer[1]


@pytest.mark.parametrize("origin", ["https://\x1b]52;c;eA==\x07", "https://\x9b31m", "x" * 10_000, "https://\u202e"])
def test_the_refusal_repeats_nothing_that_a_terminal_executes(origin: str) -> None:
    answer = refused("localhost:8080", origin)
    assert answer is not None
    assert len(answer[1]) < 300
    assert re.fullmatch(r"[ -~]*", answer[1])
