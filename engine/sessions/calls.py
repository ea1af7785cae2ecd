"""Calls: what a viewer asks of a task's producer, and what all other viewers see of it.

Order decides everything here. What is to be seen is stored in the task's stream first, and takes effect as it comes
back from there: of several answers to one question the first in the stream is the one, in every worker and for every
viewer, and whoever sent another one is told so. Only then the producer is asked, who thus hears of one answer only.
Before anything is stored we look whether a producer is attached at all, so that nothing is recorded in vain.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, NamedTuple

import msgspec
import trio
from msgspec import UNSET, Meta, Raw

from fanline.engine.bus.interface import BusError, NoListenerError
from fanline.engine.channels.log import ChannelLog
from fanline.engine.clock import unix_ms
from fanline.engine.sessions.context import Context
from fanline.engine.tasks.fold import TaskLog
from fanline.protocol.envelope import Envelope, MessageType, check_value, decode_json, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.nats.names import deduplication_id
from fanline.protocol.tasks.events import MAX_TEXT, AskKind, TaskEvent
from fanline.protocol.tasks.snapshot import Ask, snapshot_fields
from fanline.protocol.tasks.states import TaskState

CANCEL_SECONDS = 30.0
"""How long a producer may take to stop if the request does not say."""
_STORED_SECONDS = 5.0  # for a stored event to come back


class _CallData(msgspec.Struct):
    """The data of the verbs that the engine knows."""

    by: Annotated[str, Meta(max_length=64)] | None = None
    """Who asks, as viewers shall see it; only for who has no user name."""
    deadline: Annotated[float, Meta(gt=0, le=86_400)] = CANCEL_SECONDS
    ask: Annotated[str, Meta(max_length=256)] | None = None
    value: Any = UNSET
    force: bool = False
    """Of a cancel: end the task even if no producer is attached."""


class _Call(NamedTuple):
    """One call under way."""

    context: Context
    task: TaskLog
    verb: str
    data: _CallData
    raw: Any
    by: str
    attempt: int
    """The one the caller saw: nothing that is recorded of it may touch a newer one."""


async def perform_call(context: Context, log: ChannelLog, command: Envelope, user: str | None, session: str) -> Any:
    """Perform a `call` on a task whose log is steady; the data of the answer. MessageError, BusError."""
    assert log.task is not None
    verb, data = command.event, _data_of(command)
    if not verb:
        raise MessageError(ErrorCode.BAD_MESSAGE, "`call` needs a verb (`e`), as in cancel")
    snapshot = log.task.snapshot
    if snapshot.state is TaskState.UNKNOWN:
        raise MessageError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {log.channel}")
    if verb == "status":
        return snapshot_fields(snapshot)
    if snapshot.ended_for_good:
        raise MessageError(ErrorCode.TASK_ENDED, f"{log.channel} has ended ({snapshot.state})")
    by = user or data.by or _alias(session)
    call = _Call(context, log.task, verb, data, command.data, by, snapshot.attempt)
    if not await context.bus.has_listener(log.channel):
        if verb == "cancel" and call.data.force:
            return await _record(call, TaskEvent.CANCELLED, {"by": call.by, "forced": True})
        raise _no_producer(log.channel)
    return await _VERBS.get(verb, _ask_producer)(call)


@asynccontextmanager
async def steady_log(context: Context, channel: str) -> AsyncIterator[ChannelLog]:
    """A task's log, up to date and kept so inside the block. BusError."""
    if context.hub.subscribe(channel):
        context.bus.join(channel)
    log = context.hub.log(channel)
    assert log is not None
    try:
        with trio.move_on_after(context.settings.bus_timeout) as scope:
            await context.bus.wait_joined(channel)
            await context.recovery.wait_steady(log)
        if scope.cancelled_caught:
            raise BusError(f"{channel} is being compared with its stream; try again")
        yield log
    finally:
        if context.hub.release(channel):
            context.bus.leave(channel)


# --- verbs --------------------------------------------------------------------------------------------------------


async def _cancel(call: _Call) -> Any:
    """Requested, as all viewers see; then accepted or refused by the producer, as all see, too."""
    await _record(call, TaskEvent.CANCEL_REQUESTED, {"by": call.by, "deadline": call.data.deadline})
    try:
        answer = await _ask_producer(call, {"deadline": call.data.deadline})
    except MessageError as error:
        stop = call.task.snapshot.stop
        if error.code == ErrorCode.REFUSED and stop is not None and not stop.accepted:
            await _record(call, TaskEvent.CANCEL_REFUSED, {"message": str(error)[:MAX_TEXT]}, insist=False)
        raise
    await _record(call, TaskEvent.CANCEL_ACCEPTED, {"by": call.by, "deadline": call.data.deadline}, insist=False)
    return answer


async def _approve(call: _Call) -> Any:
    ask = _named_ask(call)
    if ask is not None and ask.open and ask.kind is AskKind.INPUT:
        raise MessageError(ErrorCode.BAD_STATE, f"{call.task.channel} asks for a value: answer with `input`")
    return await _answer(call, True if call.data.value is UNSET else call.data.value)


async def _reject(call: _Call) -> Any:
    return await _answer(call, False if call.data.value is UNSET else call.data.value)


async def _input(call: _Call) -> Any:
    if call.data.value is UNSET:
        raise MessageError(ErrorCode.BAD_MESSAGE, '`input` needs a value: {"value": ...}')
    ask = call.task.snapshot.ask
    if call.data.ask is not None or (ask is not None and ask.open and ask.kind is AskKind.INPUT):
        return await _answer(call, call.data.value)
    answer = await _ask_producer(call, {"value": call.data.value})
    # Nobody asked for it, so it may be anything, a password too: who gave it is told, not what.
    await _record(call, TaskEvent.ANSWERED, {"by": call.by}, insist=False)
    return answer


def _named_ask(call: _Call) -> Ask | None:
    """The question a call is about, as far as it is known: the one it names, or the newest one."""
    ask = call.task.snapshot.ask
    return ask if ask is not None and call.data.ask in (None, ask.id) else None


async def _answer(call: _Call, value: Any) -> Any:
    """Answer the question that is named, or the newest one; MessageError unless ours is the first answer to it."""
    ask = _named_ask(call)
    name = call.data.ask or (None if ask is None else ask.id)
    if name is None:
        raise MessageError(ErrorCode.BAD_STATE, f"{call.task.channel} asks nothing")
    if ask is not None and ask.open and ask.options and value is not False and value not in ask.options:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"choose one of: {', '.join(ask.options)}")
    await _record(call, TaskEvent.ANSWERED, {"ask": name, "by": call.by, "value": value})
    return await _ask_producer(call, {"ask": name, "value": value})


_VERBS: dict[str, Callable[[_Call], Awaitable[Any]]] = {
    "cancel": _cancel,
    "approve": _approve,
    "reject": _reject,
    "input": _input,
}


# --- the stream and the producer ----------------------------------------------------------------------------------


async def _record(call: _Call, event: TaskEvent, data: dict[str, Any], *, insist: bool = True) -> None:
    """Store an event, and wait until it has come back and was taken; MessageError with the reason if it was not.

    `insist=False`: then it was too late, which is no matter.
    """
    check_value(data)  # one level deeper than what the viewer sent
    call_id = secrets.token_urlsafe(12)
    fields = data | {"attempt": call.attempt, "call": call_id}
    envelope = Envelope(MessageType.PUB, id=call_id, event=event, data=fields, sender=call.by, time=unix_ms())
    channel = call.task.channel
    with call.task.expect(call_id) as outcome:
        await call.context.bus.store(channel, encode_json(envelope), deduplication_id(channel, call_id))
        with trio.move_on_after(_STORED_SECONDS) as scope:
            await outcome.settled.wait()
    if scope.cancelled_caught:
        raise BusError(f"{event} was stored and did not come back; it may have been done")
    if insist and outcome.refusal is not None:
        raise outcome.refusal


async def _ask_producer(call: _Call, data: Any = UNSET) -> Any:
    """The producer's answer. MessageError: NO_PRODUCER, NO_ANSWER, or REFUSED with its own words."""
    channel, seconds = call.task.channel, call.context.settings.call_timeout
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
        with trio.move_on_after(seconds):
            reply = await call.context.bus.call(channel, encode_json(envelope), 2 * seconds)
    except NoListenerError:
        raise _no_producer(channel) from None
    if reply is None:
        text = f"the producer of {channel} did not answer within {seconds:g} seconds"
        raise MessageError(ErrorCode.NO_ANSWER, text)
    return _answer_of(reply)


def _answer_of(reply: bytes) -> Any:
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
        told = envelope.value if isinstance(envelope.value, dict) else {}
        raise MessageError(ErrorCode.REFUSED, str(told.get("message") or "the producer refused without a reason"))
    return envelope.data


def _data_of(command: Envelope) -> _CallData:
    value = command.value
    if value is None:
        return _CallData()
    try:
        # A verb of the application's own may come with any data.
        return msgspec.convert(value, _CallData) if isinstance(value, dict) else _CallData(value=value)
    except msgspec.ValidationError as error:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"the data of `call`: {error}") from None


def _alias(session: str) -> str:
    """As whom others see a session without a user: its id is a secret by which it could be taken up."""
    return f"session {hashlib.blake2s(session.encode(), digest_size=4).hexdigest()}"


def _no_producer(channel: str) -> MessageError:
    return MessageError(ErrorCode.NO_PRODUCER, f"no producer is attached to {channel}")
