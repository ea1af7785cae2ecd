"""What clients ask of the application is answered by the function that was registered for it, or there is an error."""

import asyncio
import logging
import threading
from typing import Any

import msgspec
import pytest

from fanline.protocol.handlers import MAX_ANSWER_BYTES, HandlerError, decode_answer, encode_request
from fanline.protocol.hooks.hooks import HookRefusal, Hooks
from fanline.protocol.hooks.questions import ClientCall, ClientMessage, ClientQuestion, QuestionAnswer
from fanline.workers.handlers.functions import Function
from fanline.workers.handlers.hooks.desk import HookDesk
from fanline.workers.handlers.hooks.hooked import PLACES, Hooked

MESSAGE = ClientMessage(name="pay", data={"order": 7}, connection_id="c1", user="anna")


class Nowhere:
    def emit(self, event: str, data: dict[str, Any]) -> None:
        raise AssertionError

    def publish(self, channel: str, event: str | None, data: Any) -> None:
        raise AssertionError


def make(name: str, function: Function) -> Hooked:
    return Hooked(name, function, 0.2)


async def answer(hooks: Hooks, question: ClientQuestion | bytes, desk: HookDesk | None = None) -> QuestionAnswer:
    payload = question if isinstance(question, bytes) else encode_request(question)
    return decode_answer(await (desk or HookDesk(hooks, make)).answer("", payload), QuestionAnswer)


def answered(function: Function, question: ClientQuestion | bytes = MESSAGE) -> QuestionAnswer:
    hooks = Hooks(Nowhere())
    hooks.on_message("pay", function)
    hooks.on_call("total", function)
    return asyncio.run(answer(hooks, question))


def test_a_function_gets_the_question_and_what_it_returns_is_the_answer() -> None:
    asked = list[Any]()

    async def in_the_loop(question: ClientMessage) -> dict[str, Any]:
        asked.append(question)
        return {"paid": question.data["order"]}

    assert answered(in_the_loop).result == {"paid": 7}
    assert answered(lambda question: question.data).result == {"order": 7}
    assert asked == [MESSAGE]
    call = ClientCall(name="total", data=[1, 2], channel="doc:1", connection_id="c1")
    assert answered(lambda question: sum(question.data), call).result == 3


@pytest.mark.parametrize(
    "question",
    [
        ClientMessage(name="dance", connection_id="c1"),
        ClientMessage(name="total", connection_id="c1"),  # which is a verb
        ClientCall(name="pay", connection_id="c1"),
    ],
)
def test_what_nobody_has_registered_is_unknown(question: ClientQuestion) -> None:
    assert answered(lambda _: 1, question) == QuestionAnswer(known=False)


def test_a_refusal_is_the_functions_own_word() -> None:
    def refuse(_: Any) -> None:
        raise HookRefusal("you have paid already")

    def refuse_without_a_word(_: Any) -> None:
        raise HookRefusal

    assert answered(refuse) == QuestionAnswer(refusal="you have paid already")
    assert answered(refuse_without_a_word) == QuestionAnswer(refusal="refused")


async def sleep(_: Any) -> None:
    await asyncio.sleep(60)


def _raise(error: BaseException) -> Function:
    def function(_: Any) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_raise(ValueError("no database")), "it raised ValueError"),
        (_raise(SystemExit()), "it raised RuntimeError"),
        (_raise(StopIteration()), "it raised RuntimeError"),
        (lambda _: object(), "it returned what JSON cannot hold"),
        (lambda _: {1, b"x"} and {(1, 2): 3}, "it returned what JSON cannot hold"),
        (lambda _: "x" * MAX_ANSWER_BYTES, "it returned more than"),
        (sleep, "it was not done within 0.2 s"),
    ],
)
def test_whatever_goes_wrong_is_a_failure_and_is_logged(
    function: Function, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(HandlerError, match=words):
        answered(function)
    assert words in caplog.text
    assert "for pay" in caplog.text
    assert "1 of 1 calls have failed" in caplog.text


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"type":"authorize"}', b'{"type":"message"}'])
def test_what_is_no_question_is_a_failure(payload: bytes) -> None:
    with pytest.raises(HandlerError, match="a request cannot be read"):
        answered(lambda _: 1, payload)


def test_one_fault_of_a_function_is_logged_once_in_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks(Nowhere())
    hooks.on_message("pay", _raise(ValueError("no database")))

    async def main() -> None:
        desk = HookDesk(hooks, make)
        for _ in range(20):
            with pytest.raises(HandlerError):
                await answer(hooks, MESSAGE, desk)

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert caplog.text.count("no database") == 1


def test_a_slow_function_takes_no_place_of_another_one() -> None:
    hooks = Hooks(Nowhere())
    hooks.on_message("pay", sleep)
    hooks.on_call("total", lambda question: sum(question.data))

    async def main() -> None:
        desk = HookDesk(hooks, make)
        slow = [asyncio.ensure_future(answer(hooks, MESSAGE, desk)) for _ in range(4 * PLACES)]
        await asyncio.sleep(0)
        call = ClientCall(name="total", data=[1, 2], connection_id="c1")
        assert (await answer(hooks, call, desk)).result == 3
        results = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(result, HandlerError) for result in results)

    asyncio.run(main())


def test_calls_of_one_client_that_do_not_end_leave_places_for_others() -> None:
    release = threading.Event()

    def pay(message: ClientMessage) -> str:
        return "late" if message.user == "anna" and release.wait(30) else "paid"

    async def main() -> None:
        hooks = Hooks(Nowhere())
        hooks.on_message("pay", pay)
        desk = HookDesk(hooks, make)
        slow = [asyncio.ensure_future(answer(hooks, MESSAGE, desk)) for _ in range(2 * PLACES)]
        ends = await asyncio.gather(*slow, return_exceptions=True)
        assert all(isinstance(each, HandlerError) for each in ends)
        for other in (msgspec.structs.replace(MESSAGE, user="bob"), msgspec.structs.replace(MESSAGE, user=None)):
            assert (await answer(hooks, other, desk)).result == "paid"
        release.set()

    asyncio.run(main())
