"""Handlers: their names, and that nothing but a clear answer is one."""

import msgspec
import pytest

from fanline.protocol.handlers import (
    MAX_ANSWER_BYTES,
    AuthenticateAnswer,
    AuthenticateRequest,
    AuthorizeAnswer,
    AuthorizeRequest,
    ClientIdentity,
    HandlerAnswer,
    HandlerError,
    HandlerFailure,
    HandlerForm,
    HandlerNameError,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    parse_handler,
)

FUNCTION, WEBHOOK, SUBJECT = HandlerForm.FUNCTION, HandlerForm.WEBHOOK, HandlerForm.SUBJECT


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("app:authenticate", FUNCTION),
        ("app.auth:Users.authenticate", FUNCTION),
        ("_a1.b:c", FUNCTION),
        ("https://auth.example/fanline?key=1", WEBHOOK),
        ("http://127.0.0.1:8000", WEBHOOK),
        ("nats:app.authorize", SUBJECT),
        ("nats:a", SUBJECT),
    ],
)
def test_a_handler_has_one_of_three_forms(text: str, form: HandlerForm) -> None:
    assert parse_handler(text).form is form


@pytest.mark.parametrize(
    "text",
    [
        *("", "app", "app:", ":f", "app:f:g", "app f:g", "1app:f", "app-x:f", "app..x:f", "app:f()", "ftp://host/x"),
        *("https://", "https:///path", "http://host:port/", "http://host/a b", "http://host:0/", "https://höst/"),
        *(
            "nats:",
            "nats:a b",
            "nats:a.*",
            "nats:a.>",
            "nats:.a",
            "nats:a..b",
            "nats:fanline.pub.task.1",
            "nats:$SYS.x",
        ),
        "nats:_INBOX.x",
    ],
)
def test_what_names_no_handler_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(HandlerNameError, match=r"[a-z]{3}"):
        parse_handler(text)


def test_each_handler_is_asked_on_a_subject_of_its_own_that_shows_nothing_of_a_url() -> None:
    texts = ("app:f", "app:g", "https://h/?key=secret", "https://h/?key=secreu")
    subjects = {parse_handler(text).subject for text in texts}
    assert len(subjects) == len(texts)
    assert all(each.startswith("fanline.sys.handlers.") and "secret" not in each for each in subjects)
    assert parse_handler("nats:app.authorize").subject == "app.authorize"


def test_a_url_is_logged_without_what_may_be_secret() -> None:
    assert parse_handler("https://u:pass@h.example:8443/auth?key=secret").label == "https://h.example:8443/auth"
    assert parse_handler("app:f").label == "app:f"


# --- requests and answers -----------------------------------------------------------------------------------------

AUTHENTICATE = AuthenticateRequest(token="t", claims={"sub": "anna"}, headers={"a": "b"}, query={"x": "y"}, path="/ws")
AUTHORIZE = AuthorizeRequest(user="anna", roles=("editor",), right="sub", channel="project:7", granted=True)


@pytest.mark.parametrize("request_", [AUTHENTICATE, AUTHORIZE])
def test_a_request_says_what_it_is_and_comes_back_as_it_was(request_: AuthenticateRequest | AuthorizeRequest) -> None:
    payload = encode_request(request_)
    assert decode_request(payload) == request_
    decoded = msgspec.json.decode(payload)
    assert decoded["type"] == ("authenticate" if request_ is AUTHENTICATE else "authorize")
    assert decoded["version"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        AuthenticateAnswer(allow=False, reason="who are you?"),
        AuthenticateAnswer(
            allow=True, identity=ClientIdentity(user="anna", channels={"task:*": ("sub",)}, expires=9e9)
        ),
        AuthorizeAnswer(allow=True, ttl=60.0),
        AuthorizeAnswer(allow=False),
    ],
)
def test_an_answer_comes_back_as_it_was(answer: HandlerAnswer) -> None:
    assert decode_answer(encode_answer(answer), type(answer)) == answer


def test_cookies_are_read_from_their_header() -> None:
    request = AuthenticateRequest(headers={"cookie": 'sid=1; theme="dark";sid=2; =x; flag'})
    assert request.cookies == {"sid": "1", "theme": "dark", "": "x"}
    assert AUTHENTICATE.cookies == {}


NONSENSE = [
    *(b"", b"yes", b"true", b"null", b"[]", b"{}", b'{"allow":1}', b'{"allow":"true"}', b'{"allow":null}'),
    *(b'{"allow":true}x', b'{"ok":true}', b"\xff", b"[" * 100_000, b'{"allow":false,"reason":7}'),
    *(b'{"allow":false,"reason":"a\\u001b[2J"}', b'{"allow":true,"extra":1}'),
]


@pytest.mark.parametrize("kind", [AuthenticateAnswer, AuthorizeAnswer])
@pytest.mark.parametrize("payload", NONSENSE)
def test_nonsense_is_no_answer(payload: bytes, kind: type[HandlerAnswer]) -> None:
    with pytest.raises(HandlerError, match="cannot be used"):
        decode_answer(payload, kind)


@pytest.mark.parametrize(
    "identity",
    [
        *('{"user":""}', '{"user":"a\\u0000"}', '{"connections":0}', '{"expires":"soon"}', '{"channels":["task:*"]}'),
        *('{"conections":5}', '{"roles":"admin"}', "null", '{"user":7}', f'{{"user":"{"a" * 129}"}}'),
    ],
)
def test_an_identity_with_a_field_that_is_wrong_or_unknown_lets_nobody_in(identity: str) -> None:
    with pytest.raises(HandlerError):
        decode_answer(f'{{"allow":true,"identity":{identity}}}'.encode(), AuthenticateAnswer)


def test_whoever_gets_in_is_somebody() -> None:
    with pytest.raises(HandlerError, match="identity"):
        decode_answer(b'{"allow":true}', AuthenticateAnswer)


@pytest.mark.parametrize("ttl", ["-1", "86401", '"60"'])
def test_an_answer_is_not_remembered_for_a_time_that_makes_no_sense(ttl: str) -> None:
    with pytest.raises(HandlerError):
        decode_answer(f'{{"allow":true,"ttl":{ttl}}}'.encode(), AuthorizeAnswer)


def test_a_failure_is_no_answer_and_says_why() -> None:
    with pytest.raises(HandlerError, match=r"^it raised ValueError$"):
        decode_answer(encode_answer(HandlerFailure("it raised ValueError")), AuthorizeAnswer)


def test_an_answer_that_is_too_long_is_not_read() -> None:
    with pytest.raises(HandlerError, match="more than"):
        decode_answer(b'{"allow":true}' + b" " * MAX_ANSWER_BYTES, AuthorizeAnswer)


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"type":"authenticat"}', b'{"type":"authorize"}', b"[]"])
def test_a_request_that_is_not_known_is_refused(payload: bytes) -> None:
    with pytest.raises(HandlerError):
        decode_request(payload)
