"""Calls of a session to a producer or the application: performed beside its next commands."""

from collections.abc import Awaitable, Callable

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.channels.durable.log_budget import weight_of
from fanline.engine.faults import OnFault
from fanline.engine.sessions.refusals import failure
from fanline.engine.sessions.session import Session
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import ErrorCode, MessageError

_MAX_CALLS = 16  # of one connection under way: each may wait for a producer
_MAX_CALL_BYTES = 1024 * 1024  # of memory that they take together; one call is always allowed

Answer = Callable[[Envelope | MessageError | BusError], None]
"""Sends the answer to a call."""

PerformCall = Callable[[], Awaitable[Envelope]]
"""The answer. MessageError, BusError."""


class Beside:
    """The calls of all sessions of one worker."""

    def __init__(self, nursery: trio.Nursery, on_fault: OnFault) -> None:
        self._nursery = nursery
        self._held: dict[Session, int] = {}  # bytes of memory that the calls of a session take while they are under way
        self._on_fault = on_fault

    def begin(self, session: Session, command: Envelope, perform: PerformCall, answer: Answer) -> None:
        """Perform a call beside the session's next commands. MessageError if too many are under way."""
        if session.calls >= _MAX_CALLS:
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, f"{_MAX_CALLS} calls of this connection wait for their answer")
        held, weight = self._held.get(session, 0), weight_of(command)
        if held and held + weight > _MAX_CALL_BYTES:
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, "large calls of this connection wait for their answer")
        self._nursery.start_soon(self._run, session, command, perform, answer, name="call")
        session.calls += 1
        self._held[session] = held + weight

    async def _run(self, session: Session, command: Envelope, perform: PerformCall, answer: Answer) -> None:
        """The edge of one call: whatever goes wrong in it affects nothing else."""
        weight, about = weight_of(command), command.channel or "a call"
        try:
            await self._perform_and_answer(about, perform, answer)
        except Exception:  # noqa: BLE001  # our own fault
            self._on_fault(about, "a call cannot be answered")
        finally:
            session.calls -= 1
            self._held[session] -= weight
            if not self._held[session]:
                del self._held[session]

    async def _perform_and_answer(self, about: str, perform: PerformCall, answer: Answer) -> None:
        try:
            answer(await perform())
        except (MessageError, BusError) as error:
            answer(error)
        except Exception:  # noqa: BLE001  # our own fault
            self._on_fault(about, "a call failed")
            answer(failure())
