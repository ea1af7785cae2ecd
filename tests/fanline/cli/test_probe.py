"""What a probe makes of what it sees. The whole command is in tests/integration/cli/test_probe.py."""

from typing import Any

import pytest

from fanline.cli.probe.findings import Destination, Verdict, closed, progress, refusal, target_of
from fanline.cli.probe.routes import ROUTES
from fanline.engine.routes import DEFAULTS, Serves
from fanline.protocol.websocket.routes import RouteTable


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("ws://127.0.0.1:8080/ws", Destination(secure=False, host="127.0.0.1", port=8080, prefix=""), "127.0.0.1:8080"),
        ("wss://example.org/ws", Destination(secure=True, host="example.org", port=443, prefix=""), "example.org"),
        ("wss://example.org", Destination(secure=True, host="example.org", port=443, prefix=""), "example.org"),
        (
            "wss://example.org/app/ws/",
            Destination(secure=True, host="example.org", port=443, prefix="/app"),
            "example.org",
        ),
        ("ws://[::1]:81/live", Destination(secure=False, host="::1", port=81, prefix="/live"), "[::1]:81"),
    ],
)
def test_a_url_means_a_server_and_what_a_proxy_puts_before_its_paths(
    url: str, target: Destination, authority: str
) -> None:
    assert target_of(url) == target
    assert target.authority == authority


@pytest.mark.parametrize("status", [200, 301, 400, 404, 426, 502, 503, 504])
@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b'{"error": 7}', b"[]", b"\xff"])
def test_an_answer_that_is_not_the_servers_own_is_laid_on_what_stands_between(status: int, body: bytes) -> None:
    finding = refusal("/ws", status, body)
    assert finding.verdict is Verdict.FAILED
    assert "not an answer of a Fanline server" in finding.text
    assert "proxy" in finding.advice


@pytest.mark.parametrize(("status", "named"), [(401, "FANLINE_TOKEN"), (403, "right"), (429, "wait"), (503, "/readyz")])
def test_a_refusal_of_the_server_is_told_in_its_words_with_what_to_do(status: int, named: str) -> None:
    finding = refusal("/ws", status, b'{"error":"x","message":"not today"}')
    assert finding.verdict is Verdict.FAILED
    assert "not today" in finding.text
    assert named in finding.advice


def test_a_route_that_the_server_does_not_serve_is_no_failure() -> None:
    assert refusal("/ws/chat", 404, b'{"error":"not_found","message":"-"}').verdict is Verdict.ABSENT


def test_an_end_is_told_with_its_code_and_reason_if_there_was_one() -> None:
    assert "too many (4429)" in closed("/ws", 4429, "too many").text
    assert "firewall" in closed("/ws", None, "").advice


@pytest.mark.parametrize(
    ("message", "text", "last"),
    [
        ({"type": "status", "status": "PROCESSING"}, "status PROCESSING", False),
        ({"type": "status", "status": "FAILED"}, "status FAILED", True),
        ({"stage": "parsing", "progress": 40.0, "message": "page 4"}, "parsing 40 % page 4", False),
        ({"stage": "complete", "progress": 100, "result": {}}, "complete 100 %", True),
        ({"stage": "parsing", "progress": True}, "parsing", False),
        ({"type": "error", "message": "out of paper"}, "error: out of paper", True),
    ],
)
def test_a_message_about_the_task_is_one_line_and_its_end_is_seen(
    message: dict[str, Any], text: str, last: bool
) -> None:
    said = progress(message)
    assert said is not None
    assert (said.text, said.is_last) == (text, last)


def test_a_message_that_says_nothing_about_the_task_is_passed_over() -> None:
    assert progress({"type": "connection", "message": "connected", "task_id": 1}) is None


def test_every_default_route_of_clients_is_tried_and_the_echo_is_expected_where_there_is_one() -> None:
    table = RouteTable({path: path for path in DEFAULTS})
    tried = {found[0]: route for route in ROUTES if (found := table.find(route.path)) is not None}
    assert set(tried) == {path for path, route in DEFAULTS.items() if not route.manages}
    echoing = {path for path, route in DEFAULTS.items() if route.serves is Serves.ECHO}
    assert {path for path, route in tried.items() if route.echoes} == echoing
