"""Calls: what a viewer asks of a task's producer, and what all other viewers see of it.

Order decides everything here. What is to be seen is stored in the task's stream first, and takes effect as it comes
back from there: of several answers to one question the first in the stream wins, in every worker and for every viewer,
and a viewer who sent another one is told so. Only then is the producer asked, so it hears of one answer only. Before
anything is stored we look whether a producer is attached at all, so that nothing is recorded in vain.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import trio
from msgspec import UNSET, Raw

from fanline.engine.bus.interface import Bus, BusError, NoListenerError
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.join import Joining
from fanline.engine.clock import unix_ms
from fanline.engine.faults import OnFault
from fanline.engine.namespaces import Namespaces
from fanline.engine.sessions.session import Session
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.channels import namespace_of
from fanline.protocol.envelope import Envelope, MessageType, check_value, decode_json, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages import CallData, error_of, read
from fanline.protocol.nats.names import engine_store_id
from fanline.protocol.tasks.events import MAX_TEXT, AskKind, TaskEvent
from fanline.protocol.tasks.snapshot import Ask, snapshot_fields
from fanline.protocol.tasks.states import TaskState

_MAX_CALLS = 16  # of one connection under way: each may wait for a producer
_STORED_SECONDS = 5.0  # for a stored event to come back

Answer = Callable[[Envelope | MessageError | BusError], None]
"""Sends the answer to a call."""


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

    def __init__(
        self,
        bus: Bus,
        namespaces: Namespaces,
        joining: Joining,
        nursery: trio.Nursery,
        *,
        timeout: float,
        on_fault: OnFault,
    ) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._joining = joining
        self._nursery = nursery
        self._timeout = timeout
        self._on_fault = on_fault

    def check_is_task(self, channel: str) -> None:
        """MessageError(NOT_SUPPORTED) for a channel that has no producer."""
        if not self._namespaces.of(channel).tasks:
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} is no task (namespace {namespace_of(channel)})")

    def begin(self, session: Session, command: Envelope, channel: str, answer: Answer) -> None:
        """Perform a call beside the session's next commands. MessageError if too many are under way."""
        if session.calls >= _MAX_CALLS:
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, f"{_MAX_CALLS} calls of this connection wait for their answer")
        session.calls += 1
        self._nursery.start_soon(self._run, session, command, channel, answer, name="call")

    async def _run(self, session: Session, command: Envelope, channel: str, answer: Answer) -> None:
        """The edge of one call: whatever goes wrong in it, nobody else notices."""
        try:
            await self._perform_and_answer(session, command, channel, answer)
        except Exception:  # noqa: BLE001  # our own fault
            self._on_fault(channel, "a call cannot be answered")
        finally:
            session.calls -= 1

    async def _perform_and_answer(self, session: Session, command: Envelope, channel: str, answer: Answer) -> None:
        try:
            async with self._joining.steady(channel) as durable:
                data = await self._perform(durable, command, session)
            answer(Envelope(MessageType.OK, channel=channel, data=data))
        except (MessageError, BusError) as error:
            answer(error)
        except Exception:  # noqa: BLE001  # our own fault
            self._on_fault(channel, "a call failed")
            answer(BusError("the call failed inside the server; it may have been done"))

    async def _perform(self, durable: DurableChannel, command: Envelope, session: Session) -> Any:
        """Perform a call on a task whose channel is up to date; the data of the answer. MessageError, BusError."""
        assert isinstance(durable.fold, TaskFold)
        verb, data, snapshot = command.event, read(CallData, command), durable.fold.snapshot
        if not verb:
            raise MessageError(ErrorCode.BAD_MESSAGE, "`call` needs a verb (`e`), as in cancel")
        if snapshot.state is TaskState.UNKNOWN:
            raise MessageError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {durable.name}")
        if verb == "status":
            return snapshot_fields(snapshot)
        if snapshot.ended_for_good:
            raise MessageError(ErrorCode.TASK_ENDED, f"{durable.name} has ended ({snapshot.state})")
        by = session.identity.user or data.by or _alias(session.id)
        call = _Call(durable.fold, verb, data, command.data, by, snapshot.attempt)
        if not await self._bus.has_listener(durable.name):
            if verb == "cancel" and data.force:
                return await self._record(call, TaskEvent.CANCELLED, {"by": by, "forced": True})
            raise _no_producer(durable.name)
        return await _VERBS.get(verb, Calls.ask_producer)(self, call)

    # --- verbs ---------------------------------------------------------------------------------------------------

    async def cancel(self, call: _Call) -> Any:
        """Requested, as all viewers see; then accepted or refused by the producer, which all see, too."""
        await self._record(call, TaskEvent.CANCEL_REQUESTED, {"by": call.by, "deadline": call.data.deadline})
        try:
            answer = await self.ask_producer(call, {"deadline": call.data.deadline})
        except MessageError as error:
            stop = call.task.snapshot.stop
            if error.code == ErrorCode.REFUSED and stop is not None and not stop.accepted:
                told = {"message": str(error)[:MAX_TEXT]}
                await self._record(call, TaskEvent.CANCEL_REFUSED, told, insist=False)
            raise
        accepted = {"by": call.by, "deadline": call.data.deadline}
        await self._record(call, TaskEvent.CANCEL_ACCEPTED, accepted, insist=False)
        return answer

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
        answer = await self.ask_producer(call, {"value": call.data.value})
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
        await self._record(call, TaskEvent.ANSWERED, {"ask": name, "by": call.by, "value": value})
        return await self.ask_producer(call, {"ask": name, "value": value})

    # --- the stream and the producer -----------------------------------------------------------------------------

    async def _record(self, call: _Call, event: TaskEvent, data: dict[str, Any], *, insist: bool = True) -> None:
        """Store an event, and wait until it has come back and was taken; MessageError with the reason if it was not.

        `insist=False`: if it was not taken it was too late, which does not matter.
        """
        check_value(data)  # one level deeper than what the viewer sent
        call_id = secrets.token_urlsafe(12)
        fields = data | {"attempt": call.attempt, "call": call_id}
        envelope = Envelope(MessageType.PUB, id=call_id, event=event, data=fields, sender=call.by, time=unix_ms())
        channel = call.task.channel
        with call.task.expect(call_id) as outcome:
            await self._bus.store(channel, encode_json(envelope), engine_store_id(channel, call_id))
            with trio.move_on_after(_STORED_SECONDS) as scope:
                await outcome.settled.wait()
        if scope.cancelled_caught:
            raise BusError(f"{event} was stored and did not come back; it may have been done")
        if insist and outcome.refusal is not None:
            raise outcome.refusal

    async def ask_producer(self, call: _Call, data: Any = UNSET) -> Any:
        """The producer's answer. MessageError: NO_PRODUCER, NO_ANSWER, or REFUSED with its own words."""
        channel = call.task.channel
        envelope = Envelope(
            MessageType.CALL,
            channel=channel,
            id=secrets.token_urlsafe(12),
            event=call.verb,
            data=call.raw if data is UNSET else data,
            sender=call.by,
            time=unix_ms(),
        )
        reply: bytes | None = None
        try:
            with trio.move_on_after(self._timeout):
                reply = await self._bus.call(channel, encode_json(envelope), 2 * self._timeout)
        except NoListenerError:
            raise _no_producer(channel) from None
        if reply is None:
            text = f"the producer of {channel} did not answer within {self._timeout:g} seconds"
            raise MessageError(ErrorCode.NO_ANSWER, text)
        return _data_of(reply)


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


def _data_of(reply: bytes) -> Any:
    """The data of a producer's reply: an `ok` or `err` envelope, any other JSON, or nothing."""
    if not reply:
        return None
    try:
        value = msgspec.json.decode(reply)
        envelope = decode_json(reply) if isinstance(value, dict) and "t" in value else None
    except (msgspec.MsgspecError, MessageError, UnicodeError, RecursionError):
        raise MessageError(ErrorCode.REFUSED, "the producer's answer is not JSON") from None
    if envelope is None:
        return Raw(reply)
    if envelope.type == MessageType.ERR:
        raise MessageError(ErrorCode.REFUSED, error_of(envelope).message)
    return envelope.data


def _alias(session: str) -> str:
    """How others see a session without a user: its id is a secret by which it could be taken up."""
    return f"session {hashlib.blake2s(session.encode(), digest_size=4).hexdigest()}"


def _no_producer(channel: str) -> MessageError:
    return MessageError(ErrorCode.NO_PRODUCER, f"no producer is attached to {channel}")
