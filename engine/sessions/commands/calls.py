"""Commands that others answer: a task's producer, the application, or the user's notifications."""

from collections.abc import Awaitable, Callable
from functools import partial

from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.permissions import Permissions
from fanline.engine.bus.errors import BusError
from fanline.engine.sessions.calls.beside import Beside, PerformCall
from fanline.engine.sessions.calls.calls import Calls
from fanline.engine.sessions.calls.managing import Managing
from fanline.engine.sessions.calls.notified import NotificationCommands
from fanline.engine.sessions.calls.own import OwnCommands, kind_of
from fanline.engine.sessions.refusals import code_of, refusal
from fanline.engine.sessions.session import Session
from fanline.protocol.auth.rights import Right, right_of_verb
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import MessageError
from fanline.protocol.messages.commands import command_channel

AnswerWith = Callable[[Envelope], None]
PerformOn = Callable[[Session, Envelope, str], Awaitable[Envelope]]


class CallCommands:
    """Those of the sessions of one worker. The next command does not wait for the answer."""

    def __init__(
        self,
        *,
        permissions: Permissions,
        audit: Audit,
        calls: Calls,
        own: OwnCommands,
        notified: NotificationCommands,
        managing: Managing,
        beside: Beside,
    ) -> None:
        self._permissions = permissions
        self._audit = audit
        self._calls = calls
        self._own = own
        self._notified = notified
        self._managing = managing
        self._beside = beside

    async def call(self, session: Session, command: Envelope, answer: AnswerWith) -> None:
        """Ask the part that answers calls on this channel. MessageError, BusError."""
        channel = command_channel(command)
        right, perform = self._who_answers(session, channel, command.event or "")
        await self._permissions.check(session.identity, right, channel)
        asked = partial(perform, session, command, channel)
        self._begin(session, command, asked, answer, channel=channel, verb=command.event)

    def own(self, session: Session, command: Envelope, answer: AnswerWith) -> None:
        """Perform a message of a type that only the application may know, or a call of the management API.
        MessageError.
        """
        if session.route.options.manages:
            perform = self._managing.message
        else:
            self._own.check(command)
            perform = self._own.message
        asked = partial(perform, session, command)
        self._begin(session, command, asked, answer, channel=None, verb=kind_of(command))

    def _who_answers(self, session: Session, channel: str, verb: str) -> tuple[Right, PerformOn]:
        """The right that a call needs, and who performs it. A verb that is no task's is the application's own, unless
        it is one of a user's notifications or, on the monitor, a call of the management API.
        """
        if self._managing.takes_call(session, channel):
            return Right.CALL, self._managing.call
        if self._calls.is_task(channel):
            return right_of_verb(verb), self._calls.perform
        if self._notified.knows(channel, verb):
            return Right.SUB, self._notified.call
        return Right.CALL, self._own.call

    def _begin(
        self,
        session: Session,
        command: Envelope,
        perform: PerformCall,
        answer: AnswerWith,
        *,
        channel: str | None,
        verb: str | None,
    ) -> None:
        def audit_and_answer(reply: Envelope | MessageError | BusError) -> None:
            code = None if isinstance(reply, Envelope) else code_of(reply)
            self._audit.record(AuditEvent.CALLED, session.identity, channel=channel, verb=verb, code=code)
            answer(reply if isinstance(reply, Envelope) else refusal(command, reply))

        self._beside.begin(session, command, perform, audit_and_answer)
