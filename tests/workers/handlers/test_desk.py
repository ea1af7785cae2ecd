"""What a function returns becomes an answer, or there is none."""

import asyncio
from typing import Any

import pytest

from fanline.protocol.handlers import (
    AuthenticateAnswer,
    AuthenticateRequest,
    AuthorizeAnswer,
    AuthorizeRequest,
    ClientIdentity,
    HandlerAnswer,
    HandlerError,
    HandlerRequest,
    decode_answer,
    encode_request,
    parse_handler,
)
from fanline.workers.handlers.desk import Desk
from fanline.workers.handlers.functions import FunctionCalls
from fanline.workers.handlers.webhooks import Webhooks

HANDLER = parse_handler("app:f")
AUTHENTICATE = AuthenticateRequest(token="t", path="/ws")
AUTHORIZE = AuthorizeRequest(user="anna", right="sub", channel="project:7", granted=False)


def answer(function: Any, request: HandlerRequest | bytes) -> bytes:
    async def main() -> bytes:
        webhooks = Webhooks(1.0, 0)
        desk = Desk({HANDLER: function}, lambda: FunctionCalls(1.0, on_stuck=lambda: None), webhooks)
        assert desk.subjects == [HANDLER.subject]
        payload = request if isinstance(request, bytes) else encode_request(request)
        try:
            return await desk.answer(HANDLER.subject, payload)
        finally:
            await webhooks.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, AuthenticateAnswer(allow=False)),
        (ClientIdentity(user="anna"), AuthenticateAnswer(allow=True, identity=ClientIdentity(user="anna"))),
    ],
)
def test_an_authenticator_returns_an_identity_or_none(returned: Any, expected: HandlerAnswer) -> None:
    assert decode_answer(answer(lambda _: returned, AUTHENTICATE), AuthenticateAnswer) == expected


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (True, AuthorizeAnswer(allow=True)),
        (False, AuthorizeAnswer(allow=False)),
        (AuthorizeAnswer(allow=True, ttl=5.0), AuthorizeAnswer(allow=True, ttl=5.0)),
    ],
)
def test_an_authorizer_returns_a_truth_value_or_an_answer(returned: Any, expected: HandlerAnswer) -> None:
    assert decode_answer(answer(lambda _: returned, AUTHORIZE), AuthorizeAnswer) == expected


async def forgotten() -> bool:
    return False


@pytest.mark.parametrize("returned", [True, "anna", {"user": "anna"}, ClientIdentity(user=""), object()])
def test_anything_else_from_an_authenticator_is_no_answer(returned: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(HandlerError, match="it returned something that is not an answer"):
        decode_answer(answer(lambda _: returned, AUTHENTICATE), AuthenticateAnswer)
    assert "app:f returned something that is not an answer" in caplog.text


@pytest.mark.parametrize(
    "returned",
    [None, 1, "yes", [True], AuthorizeAnswer(allow="yes"), AuthorizeAnswer(allow=True, ttl=-1.0)],  # type: ignore[arg-type]
)
def test_anything_else_from_an_authorizer_is_no_answer(returned: Any) -> None:
    with pytest.raises(HandlerError, match="it returned something that is not an answer"):
        decode_answer(answer(lambda _: returned, AUTHORIZE), AuthorizeAnswer)


def test_a_function_that_raises_is_logged_with_its_traceback_and_says_nothing_of_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Any) -> None:
        raise ValueError("the password is 1234")

    said = answer(broken, AUTHORIZE)
    assert b"1234" not in said
    with pytest.raises(HandlerError, match="it raised ValueError"):
        decode_answer(said, AuthorizeAnswer)
    (record,) = caplog.records
    assert record.exc_info is not None


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"type":"dance"}'])
def test_a_request_of_another_version_is_no_reason_to_call(payload: bytes) -> None:
    called = list[Any]()
    with pytest.raises(HandlerError, match="cannot be read"):
        decode_answer(answer(called.append, payload), AuthorizeAnswer)
    assert called == []


def test_the_function_gets_the_request_as_an_object() -> None:
    got = list[Any]()
    answer(got.append, AUTHENTICATE)
    answer(got.append, AUTHORIZE)
    assert got == [AUTHENTICATE, AUTHORIZE]


def test_a_client_that_makes_a_function_raise_again_and_again_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    faults = [ValueError("first"), *(KeyError("another kind"), ValueError("again")) * 20]
    todo = iter(faults)

    def broken(_: Any) -> None:
        raise next(todo)

    async def main() -> None:
        webhooks = Webhooks(1.0, 0)
        desk = Desk({HANDLER: broken}, lambda: FunctionCalls(9.0, on_stuck=lambda: None), webhooks)
        for _ in faults:
            await desk.answer(HANDLER.subject, encode_request(AUTHORIZE))
        await webhooks.aclose()

    asyncio.run(main())
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [ValueError, KeyError]
