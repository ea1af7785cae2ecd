"""How a worker asks handlers, the application's own code: over NATS, with a deadline, and never with a guess."""

import logging
from typing import Protocol

import trio

from fanline.engine.access.settings import HandlerSettings
from fanline.engine.bus.errors import BusError, NoListenerError
from fanline.engine.log_pace import LogPace
from fanline.protocol.handlers import (
    Answered,
    Handler,
    HandlerError,
    HandlerForm,
    HandlerRequest,
    decode_answer,
    encode_request,
)

AT_ONCE = 256
"""Requests of one handler under way; the others of this worker wait for their turn."""
_MOST_WAITING = 16_384  # requests of one handler that wait: each holds what its client has sent
_log = logging.getLogger("fanline.access")


class Asks(Protocol):
    """The part of the bus that is needed."""

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """The answer of one listener on the subject. NoListenerError at once if there is none; BusError."""
        ...


class HandlerClient:
    """Asks the handlers of one worker. However slow a handler is, others are asked meanwhile."""

    def __init__(self, bus: Asks, settings: HandlerSettings | None = None) -> None:
        self.settings = settings or HandlerSettings()
        self._bus = bus
        self._turns: dict[Handler, trio.CapacityLimiter] = {}
        self._pace = LogPace(clock=trio.current_time)

    async def ask(self, handler: Handler, request: HandlerRequest, kind: type[Answered]) -> Answered:
        """Its answer, within `settings.timeout`. HandlerError, which is logged, if there is no usable answer."""
        turns = self._turns.setdefault(handler, trio.CapacityLimiter(AT_ONCE))
        seconds = self.settings.timeout
        if turns.statistics().tasks_waiting >= _MOST_WAITING:
            raise self._failure(handler, "too many requests wait for it")
        with trio.move_on_after(seconds):
            async with turns:
                return await self._ask(handler, request, kind)
        raise self._failure(handler, f"it did not answer within {seconds:g} s")

    async def _ask(self, handler: Handler, request: HandlerRequest, kind: type[Answered]) -> Answered:
        try:
            # The scope around this one ends the wait: the bus, which would say so in other words, has longer.
            answer = await self._bus.ask(handler.subject, encode_request(request), 2 * self.settings.timeout)
            return decode_answer(answer, kind)
        except NoListenerError:
            own = handler.form is HandlerForm.SUBJECT
            reason = "nobody listens there" if own else "the process `handlers` does not run"
            raise self._failure(handler, reason) from None
        except (BusError, HandlerError) as error:
            raise self._failure(handler, str(error)) from None

    def _failure(self, handler: Handler, reason: str) -> HandlerError:
        """Log the reason; not for every client, since all of them may be affected."""
        if self._pace.allows(handler):
            _log.error("the handler %s: %s; clients are refused", handler.label, reason)
        return HandlerError(reason)
