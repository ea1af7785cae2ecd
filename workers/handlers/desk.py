"""Takes the requests of workers, has the right handler answer them, and never lets one request disturb another."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from fanline.engine.log_pace import LogPace
from fanline.protocol.handlers import (
    AuthenticateAnswer,
    AuthenticateRequest,
    AuthorizeAnswer,
    AuthorizeRequest,
    ClientIdentity,
    Handler,
    HandlerAnswer,
    HandlerError,
    HandlerFailure,
    HandlerForm,
    decode_answer,
    decode_request,
    encode_answer,
)
from fanline.workers.handlers.functions import Function, FunctionCalls, TooLateError
from fanline.workers.handlers.webhooks import Webhooks

Ask = Callable[[bytes], Awaitable[bytes]]
"""Answers a request, JSON for JSON. HandlerError."""

_log = logging.getLogger("fanline.handlers")


class Desk:
    """`by_subject`: subject -> the handler that answers there."""

    def __init__(
        self, handlers: Mapping[Handler, Function | None], make: Callable[[], FunctionCalls], webhooks: Webhooks
    ) -> None:
        """`handlers`: handler -> its function; None for a webhook. `make()`: for the calls of one function."""
        self._calls = {handler: make() for handler, function in handlers.items() if function is not None}
        self._webhooks = webhooks
        self._pace = LogPace()  # per kind of fault and handler: a client can cause hundreds a second
        self._by_subject = {handler.subject: (handler, function) for handler, function in handlers.items()}

    @property
    def subjects(self) -> list[str]:
        return list(self._by_subject)

    async def answer(self, subject: str, payload: bytes) -> bytes:
        """The answer to a request; a failure if there is none, whose reason is for the log of the worker."""
        handler, function = self._by_subject[subject]
        try:
            if handler.form is HandlerForm.WEBHOOK:
                return await self._webhooks.ask(handler, payload)
            assert function is not None
            return await self._call(handler, function, payload)
        except TooLateError as error:
            if self._pace.allows((handler, TooLateError)):
                _log.error("the handler %s: %s", handler.label, error, exc_info=error.with_traceback(None))
            return encode_answer(HandlerFailure(str(error)))
        except HandlerError as error:
            return encode_answer(HandlerFailure(str(error)))
        except Exception as error:  # noqa: BLE001  # the application's own
            if self._pace.allows((handler, type(error))):
                _log.exception("the handler %s failed", handler.label)
            return encode_answer(HandlerFailure(f"it raised {type(error).__name__}"))

    async def _call(self, handler: Handler, function: Function, payload: bytes) -> bytes:
        request = decode_request(payload)
        result = await self._calls[handler].call(function, request)
        try:
            meant = _as_answer(request, result)
            answer = encode_answer(meant)
            decode_answer(answer, type(meant))  # objects check their fields only when they are decoded
        except (HandlerError, TypeError, ValueError) as error:
            if self._pace.allows((handler, HandlerError)):
                _log.error("the handler %s returned something that is not an answer: %s", handler.label, error)  # ours
            raise HandlerError("it returned something that is not an answer") from None
        return answer


def _as_answer(request: AuthenticateRequest | AuthorizeRequest, result: object) -> HandlerAnswer:
    """What a function's result means. TypeError: truth is not guessed, because a forgotten `await` is true, too."""
    if isinstance(request, AuthenticateRequest):
        if result is None:
            return AuthenticateAnswer(allow=False)
        if isinstance(result, ClientIdentity):
            return AuthenticateAnswer(allow=True, identity=result)
        raise TypeError(f"expected a ClientIdentity or None, not {type(result).__name__}")
    if isinstance(result, bool):
        return AuthorizeAnswer(allow=result)
    if isinstance(result, AuthorizeAnswer):
        return result
    raise TypeError(f"expected True, False or a AuthorizeAnswer, not {type(result).__name__}")
