"""What INFO and -ERR say. The texts are those of nats-server 2.15: client.go, errors.go, server.go, accounts.go."""

import pytest

from fanline.protocol.nats.parser import NatsError, Parser, Reply
from fanline.protocol.nats.replies import ComplaintKind, ServerInfo, complaint_of, parse_info

PUBLISH, SUBSCRIBE = ComplaintKind.PUBLISH_DENIED, ComplaintKind.SUBSCRIBE_DENIED
PERMISSIONS = {
    'Permissions Violation for Publish to "a.b"': (PUBLISH, "publish to a.b"),
    'Permissions Violation for Publish with Reply of "_R_.a.b"': (PUBLISH, "ask for replies on _R_.a.b"),
    'Permissions Violation for Subscription to "a.b"': (SUBSCRIBE, "subscribe to a.b"),
    'Permissions Violation for Subscription to "a.b" using queue "q.r"': (SUBSCRIBE, "subscribe to a.b"),
    'Permissions Violation for Subscription to "a.b" (sid "7")': (SUBSCRIBE, "subscribe to a.b"),
    'Permissions Violation for Subscription to "a.b" using queue "q" (sid "7")': (SUBSCRIBE, "subscribe to a.b"),
    'Permissions Violation for Subscription to "a.b", too many tokens': (SUBSCRIBE, "subscribe to a.b"),
    'Permissions Violation for Subscription to "fanline.out.>"': (SUBSCRIBE, "subscribe to fanline.out.>"),
    'permissions violation for publish to "$JS.API.INFO"': (PUBLISH, "publish to $JS.API.INFO"),
}
LOGIN = (
    "Authorization Violation",
    "Authentication Timeout",
    "User Authentication Expired",
    "User Authentication Revoked",
    "Account Authentication Expired",
)
ONE_COMMAND = ("maximum subscriptions exceeded", "Invalid Subject", "Invalid Publish Subject")
THE_END = (
    "Maximum Payload Violation",
    "Stale Connection",
    "Slow Consumer",
    "maximum connections exceeded",
    "maximum account active connections exceeded",
    "maximum control line exceeded",
    "Unknown Protocol Operation",
    "Secure Connection - TLS Required",
    "Connection throttling is active. Please try again later.",
    "invalid client protocol",
    "Failed Account Registration",
)


def said(text: str) -> Reply:
    """The reply as it comes from the server."""
    (reply,) = Parser().feed(f"-ERR '{text}'\r\n".encode())
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("text", PERMISSIONS)
def test_a_permissions_violation_names_the_subject_and_what_was_tried(text: str) -> None:
    kind, tried = PERMISSIONS[text]
    complaint = complaint_of(said(text))
    assert (complaint.kind, complaint.subject) == (kind, tried.rpartition(" ")[2])
    assert complaint.text == f"NATS does not permit this user to {tried}"


@pytest.mark.parametrize(
    ("quoted", "subject"), [(r"a\"b", r"a\"b"), ("a'b", "a'b"), ("a b", "a b"), (r"a\x0bb", r"a\x0bb"), ("é", "é")]
)
def test_an_odd_subject_is_named_whole_as_the_server_quotes_it(quoted: str, subject: str) -> None:
    assert (
        complaint_of(said(f'Permissions Violation for Subscription to "{quoted}" using queue "q"')).subject == subject
    )


@pytest.mark.parametrize("text", LOGIN)
def test_a_refused_login_says_so_with_the_words_of_the_server(text: str) -> None:
    complaint = complaint_of(said(text))
    assert complaint == (ComplaintKind.LOGIN, f"NATS refused the login: {text}", "")


@pytest.mark.parametrize("text", ONE_COMMAND)
def test_a_refused_command_does_not_concern_the_connection(text: str) -> None:
    assert complaint_of(said(text)) == (ComplaintKind.COMMAND_REFUSED, f"the NATS server refused: {text}", "")


@pytest.mark.parametrize("text", [*THE_END, "", "something of a later version"])
def test_any_other_complaint_ends_the_connection(text: str) -> None:
    assert complaint_of(said(text)) == (ComplaintKind.OTHER, f"the NATS server refused: {text}", "")


# --- INFO ---------------------------------------------------------------------------------------------------------

FULL_INFO = """{"server_id":"NC","server_name":"n1","version":"2.15.1","proto":1,"git_commit":"x","go":"go1.25",
"host":"0.0.0.0","port":4222,"headers":true,"tls_required":true,"tls_verify":true,"tls_available":true,"max_payload":8192,
"jetstream":true,"client_id":5,"client_ip":"127.0.0.1","nonce":"abc","cluster":"c","connect_urls":["10.0.0.1:4222","[::1]:4223"],"ldm":true,
"xkey":"X","api_lvl":2}"""


def test_info_is_read_and_fields_that_we_do_not_use_are_ignored() -> None:
    assert parse_info(FULL_INFO) == ServerInfo(
        version="2.15.1",
        max_payload=8192,
        headers=True,
        tls_required=True,
        tls_available=True,
        nonce="abc",
        connect_urls=["10.0.0.1:4222", "[::1]:4223"],
        ldm=True,
    )


def test_an_info_without_a_field_has_its_default() -> None:
    assert parse_info("{}") == ServerInfo()
    assert ServerInfo().max_payload == 1024 * 1024
    assert not ServerInfo().tls_required
    assert not ServerInfo().ldm


@pytest.mark.parametrize(
    "detail", ["", "nonsense", "[]", '{"max_payload":"1"}', '{"connect_urls":"a"}', '{"port":1', '"']
)
def test_an_info_that_cannot_be_read_is_refused(detail: str) -> None:
    with pytest.raises(NatsError, match="INFO cannot be read"):
        parse_info(detail)
