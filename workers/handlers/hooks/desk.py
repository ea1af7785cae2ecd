"""Passes clients' questions to the functions that were registered for them."""

from collections.abc import Callable

from fanline.protocol.handlers import HandlerError, HandlerFailure, encode_answer
from fanline.protocol.hooks.hooks import HookRefusal, Hooks
from fanline.protocol.hooks.questions import (
    ClientCall,
    ClientMessage,
    QuestionAnswer,
    decode_question,
    encode_question_answer,
)
from fanline.workers.handlers.functions import Function
from fanline.workers.handlers.hooks.hooked import Hooked


class HookDesk:
    """Answers for all functions that are registered for messages and calls."""

    def __init__(self, hooks: Hooks, make: Callable[[str, Function], Hooked]) -> None:
        self._messages = {name: make(name, function) for name, function in hooks.messages.items()}
        self._calls = {name: make(name, function) for name, function in hooks.calls.items()}

    async def answer(self, _subject: str, payload: bytes) -> bytes:
        """The answer to a question; a failure, whose reason is for the log of the worker."""
        try:
            return await self._answer(decode_question(payload))
        except HandlerError as error:
            return encode_answer(HandlerFailure(str(error)))

    async def _answer(self, question: ClientMessage | ClientCall) -> bytes:
        known = self._messages if isinstance(question, ClientMessage) else self._calls
        hooked = known.get(question.name)
        if hooked is None:
            return encode_question_answer(QuestionAnswer(known=False))
        try:
            client = question.user or question.connection_id
            return await hooked.call(question, _encoded, client)  # type: ignore[no-any-return]  # bytes, as _encoded returns
        except HookRefusal as refusal:
            return encode_question_answer(QuestionAnswer(refusal=str(refusal) or "refused"))


def _encoded(result: object) -> bytes:
    return encode_question_answer(QuestionAnswer(result=result))
