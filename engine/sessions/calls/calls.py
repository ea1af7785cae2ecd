"""Calls: a viewer's requests to a task's producer, and what all other viewers see of them.

Order decides everything here. What viewers are to see is stored in the task's stream first, and takes effect as it
comes back from there: of several answers to one question the first in the stream wins, in every worker and for every
viewer, and a viewer who sent another one is told so. Only then is the producer asked, so it gets one answer only.
Before anything is stored we check whether a producer answers at all, so that nothing is recorded in vain.

What is stored is delivered: if the producer can no longer be reached, the caller is told so, and the task monitor tries
again until the producer has replied (engine/tasks/deliveries.py).
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import trio
from msgspec import UNSET

from fanline.engine.bus.errors import BusError, NoListenerError
from fanline.engine.bus.interface import Bus
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.joining.join import Joining
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespaces
from fanline.engine.sessions.session import Session
from fanline.engine.tasks.deliveries import Delivery, answer_delivery, call_payload, reply_data, stop_delivery
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.auth.rights import EVERY_RIGHT
from fanline.protocol.dialects.plain.answers import answer_meant
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import NOT_DELIVERED
from fanline.protocol.messages.commands import CallData
from fanline.protocol.messages.control_data import read
from fanline.protocol.nats.names import engine_store_id
from fanline.protocol.tasks.events import MAX_RESULT_BYTES, AskKind, TaskEvent
from fanline.protocol.tasks.snapshot import Ask, snapshot_fields
from fanline.protocol.tasks.states import TaskState
from fanline.protocol.values import check_value

_STORED_SECONDS = 5.0  # for a stored event to come back
_UNREACHED = (ErrorCode.NO_PRODUCER, ErrorCode.NO_ANSWER)


class _Call(NamedTuple):
    """One call under way."""

    task: TaskFold
    verb: str
    data: CallData
    raw: Any
    by: str
    attempt: int
    """The attempt the caller saw: nothing that is recorded of the call may touch a newer one."""


class Calls:
    """The calls of all sessions of one worker. `timeout`: seconds a producer has to answer."""

    def __init__(self, bus: Bus, namespaces: Namespaces, joining: Joining, *, timeout: float) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._joining = joining
        self._timeout = timeout

    async def knows(self, channel: str) -> bool:
        """Whether the task was ever known; True for a channel that is not a task. BusError."""
        if not self._namespaces.of(channel).tasks:
            return True
        async with self._joining.steady(channel) as durable:
            assert isinstance(durable.fold, TaskFold)
            return durable.fold.snapshot.state is not TaskState.UNKNOWN

    def is_task(self, channel: str) -> bool:
        """Whether a channel may have a producer, who is called."""
        return self._namespaces.of(channel).tasks

    async def perform(self, session: Session, command: Envelope, channel: str) -> Envelope:
        """The answer to a call. MessageError, BusError."""
        async with self._joining.steady(channel) as durable:
            said = read(CallData, command)
            data = await self._perform(durable, command, said, _caller(session, channel, said))
        return Envelope(MessageType.OK, channel=channel, data=data)

    async def perform_for(self, by: str, command: Envelope, channel: str) -> Any:
        """Perform a call of a caller without a session; the data of the answer. MessageError, BusError."""
        if not self.is_task(channel):
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} is no task")
        async with self._joining.steady(channel) as durable:
            return await self._perform(durable, command, read(CallData, command), by)

    async def _perform(self, durable: DurableChannel, command: Envelope, data: CallData, by: str) -> Any:
        """Perform a call on a task whose channel is up to date; the data of the answer. MessageError, BusError."""
        assert isinstance(durable.fold, TaskFold)
        verb, snapshot = command.event, durable.fold.snapshot
        if not verb:
            raise MessageError(ErrorCode.BAD_MESSAGE, "`call` needs a verb (`e`), as in cancel")
        if snapshot.state is TaskState.UNKNOWN:
            raise MessageError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {durable.name}")
        if verb == "status":
            return snapshot_fields(snapshot)
        if snapshot.ended_for_good:
            raise MessageError(ErrorCode.TASK_ENDED, f"{durable.name} has ended ({snapshot.state})")
        if verb == "input" and isinstance(command, PlainCommand):
            verb, data = answer_meant(snapshot.ask, data)
        call = _Call(durable.fold, verb, data, command.data, by, snapshot.attempt)
        if not await self._bus.has_producer(durable.name):
            if verb == "cancel" and data.force:
                await self._record(call, TaskEvent.CANCELLED, {"by": by, "forced": True})
                return None
            raise _no_producer(durable.name)
        return await _VERBS.get(verb, Calls.ask_producer)(self, call)

    # --- verbs ---------------------------------------------------------------------------------------------------

    async def cancel(self, call: _Call) -> Any:
        """Requested, as all viewers see; then accepted or refused by the producer, which all see, too."""
        deadline = call.data.deadline
        stored = await self._record(call, TaskEvent.CANCEL_REQUESTED, {"by": call.by, "deadline": deadline})
        return await self._deliver(call, stop_delivery(stored, deadline, call.attempt, call.by))

    async def approve(self, call: _Call) -> Any:
        ask = _named_ask(call)
        if ask is not None and ask.open and ask.kind is AskKind.INPUT:
            raise MessageError(ErrorCode.BAD_STATE, f"{call.task.channel} asks for a value: answer with `input`")
        return await self._answer(call, True if call.data.value is UNSET else call.data.value)

    async def reject(self, call: _Call) -> Any:
        return await self._answer(call, False if call.data.value is UNSET else call.data.value)

    async def input(self, call: _Call) -> Any:
        if call.data.value is UNSET:
            raise MessageError(ErrorCode.BAD_MESSAGE, '`input` needs a value: {"value": ...}')
        ask = call.task.snapshot.ask
        if call.data.ask is not None or (ask is not None and ask.open and ask.kind is AskKind.INPUT):
            return await self._answer(call, call.data.value)
        answer = await self._ask(call, secrets.token_urlsafe(12), {"value": call.data.value})
        # It was not asked for, so it may be anything, a password too: viewers see who gave it, not what.
        await self._record(call, TaskEvent.ANSWERED, {"by": call.by}, insist=False)
        return answer

    async def _answer(self, call: _Call, value: Any) -> Any:
        """Answer the question that is named, or the newest one; MessageError unless ours is the first answer to it."""
        ask = _named_ask(call)
        name = call.data.ask or (None if ask is None else ask.id)
        if name is None:
            raise MessageError(ErrorCode.BAD_STATE, f"{call.task.channel} asks nothing")
        if ask is not None and ask.open and ask.options and value is not False and value not in ask.options:
            raise MessageError(ErrorCode.BAD_MESSAGE, f"choose one of: {', '.join(ask.options)}")
        if len(msgspec.json.encode(value)) > MAX_RESULT_BYTES:  # a snapshot does not keep it
            raise MessageError(ErrorCode.TOO_LARGE, f"an answer has at most {MAX_RESULT_BYTES:,} bytes as JSON")
        answered = {"ask": name, "by": call.by, "verb": call.verb, "value": value}
        stored = await self._record(call, TaskEvent.ANSWERED, answered)
        ask = _named_ask(call)
        again = ask.again if ask is not None and ask.call == stored else 0
        return await self._deliver(call, answer_delivery(stored, call.verb, name, value, call.by, again))

    # --- the stream and the producer -----------------------------------------------------------------------------

    async def _record(self, call: _Call, event: TaskEvent, data: dict[str, Any], *, insist: bool = True) -> str:
        """Store an event, and wait until it has come back and was accepted; MessageError with the reason if it was not.
        Returns its id.

        `insist=False`: if it was not accepted it was too late, which does not matter.
        """
        check_value(data)  # one level deeper than what the viewer sent
        call_id = secrets.token_urlsafe(12)
        fields = data | {"attempt": call.attempt, "call": call_id}
        envelope = Envelope(MessageType.PUB, id=call_id, event=event, data=fields, sender=call.by, time=unix_ms())
        channel = call.task.channel
        with call.task.expect(call_id) as outcome:
            await self._bus.store(channel, encode_json(envelope), engine_store_id(channel, call_id), signed=True)
            with trio.move_on_after(_STORED_SECONDS) as scope:
                await outcome.settled.wait()
        if scope.cancelled_caught:
            raise BusError(f"{event} was stored and did not come back; it may have been done")
        if insist and outcome.refusal is not None:
            raise outcome.refusal
        return call_id

    async def _deliver(self, call: _Call, delivery: Delivery) -> Any:
        """Tell the producer what was stored, and store that it has replied; its answer. MessageError(REFUSED)."""
        try:
            answer = await self._ask(call, delivery.id, delivery.data)
        except BusError:
            return NOT_DELIVERED
        except MessageError as error:
            if error.code in _UNREACHED:
                return NOT_DELIVERED
            await self._confirm(call, delivery, str(error))
            raise
        await self._confirm(call, delivery, None)
        return answer

    async def _confirm(self, call: _Call, delivery: Delivery, refusal: str | None) -> None:
        event, data = delivery.confirmation(refusal)
        stop = call.task.snapshot.stop
        if event is TaskEvent.CANCEL_REFUSED and (stop is None or stop.accepted or stop.call != delivery.id):
            return  # another request counts, or was accepted
        with suppress(BusError):  # the producer has it; the monitor asks again and gets the same reply
            await self._record(call, event, data, insist=False)

    async def ask_producer(self, call: _Call) -> Any:
        """Pass a verb of the application's own on; the producer's answer, or MessageError as for `_ask`."""
        return await self._ask(call, secrets.token_urlsafe(12), call.raw)

    async def _ask(self, call: _Call, call_id: str, data: Any) -> Any:
        """The producer's answer. MessageError: NO_PRODUCER, NO_ANSWER, or REFUSED with its own words. BusError."""
        channel = call.task.channel
        payload = call_payload(channel, call_id, call.verb, data, call.by, unix_ms())
        reply: bytes | None = None
        try:
            with trio.move_on_after(self._timeout):
                reply = await self._bus.call(channel, payload, 2 * self._timeout)
        except NoListenerError:
            raise _no_producer(channel) from None
        if reply is None:
            text = f"the producer of {channel} did not answer within {self._timeout:g} seconds"
            raise MessageError(ErrorCode.NO_ANSWER, text)
        return reply_data(reply)


_VERBS: dict[str, Callable[[Calls, _Call], Awaitable[Any]]] = {
    "cancel": Calls.cancel,
    "approve": Calls.approve,
    "reject": Calls.reject,
    "input": Calls.input,
}


def _named_ask(call: _Call) -> Ask | None:
    """The question a call is about, as far as it is known: the one it names, or the newest one."""
    ask = call.task.snapshot.ask
    return ask if ask is not None and call.data.ask in (None, ask.id) else None


def _caller(session: Session, channel: str, data: CallData) -> str:
    """Who calls, as others see it. A caller without a user name may say so itself if it may do everything on the
    channel; others could pass for a user.
    """
    own = data.by if EVERY_RIGHT in session.identity.grants.on(channel) else None
    return session.identity.user or own or _alias(session.id)


def _alias(session: str) -> str:
    """How others see a session without a user: its id is a secret by which it could be taken up."""
    return f"session {hashlib.blake2s(session.encode(), digest_size=4).hexdigest()}"


def _no_producer(channel: str) -> MessageError:
    return MessageError(ErrorCode.NO_PRODUCER, f"no producer of {channel} answers")
