"""Joining a durable channel: answer, history, live, as one sequence without a hole and without a repeat.

There is no hold-back queue. The channel's log is the one ordered truth in this worker: the client is sent what the log
(or the stream before it) has after its offset, as fast as it reads, and is activated in the very step in which nothing
is left. A slow client just takes longer; it is never given a gap because others publish faster than it reads.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, NamedTuple

import msgspec
import trio

from fanline.engine.bus.interface import BusError
from fanline.engine.channels.inbox import read_cursor
from fanline.engine.channels.log import ChannelLog, GapReason
from fanline.engine.channels.task_frames import snapshot_frame, with_snapshot
from fanline.engine.clock import unix_ms
from fanline.engine.sending.backlog import is_expired
from fanline.engine.sending.outbox import Outbox
from fanline.engine.sessions.context import Context
from fanline.engine.tasks.fold import DEFAULT_LINES
from fanline.engine.tasks.output_tail import MAX_LINES
from fanline.protocol.dialects import PLAIN
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError

_CHUNK = 256  # messages pushed before the client must have taken them
_MOST = 1_000_000
_RETRY_SECONDS = 0.2


class StartPosition(NamedTuple):
    """From where on a client wants a channel."""

    offset: int | None
    """After this offset; None: only what comes from now on."""
    epoch: str | None
    """The epoch of that offset; None: not told."""
    newest: int | None = None
    """Only the newest so many of the messages after the offset; None: all."""
    stored: bool = False
    """It wants what is stored: what no longer is, is not missed."""
    lines: int | None = None
    """Of a task: its snapshot, with the newest so many lines of its output."""


class _Position(msgspec.Struct, forbid_unknown_fields=True):
    """The data of a `sub`: {"last": N}, {"start": true} or {"snapshot": true}, which is the newest message; on a task
    channel the task's snapshot, with "lines": N of its output.
    """

    last: int | None = None
    start: bool = False
    snapshot: bool = False
    lines: Annotated[int, msgspec.Meta(ge=0, le=MAX_LINES)] = DEFAULT_LINES


class Resumption(msgspec.Struct, forbid_unknown_fields=True):
    """The data of an `auth` that takes up a session: its id, and how far each channel was received."""

    session: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
    positions: dict[str, tuple[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)], str]] = {}
    """Channel -> (offset, epoch)."""

    def subscribe(self, channel: str) -> Envelope:
        """The `sub` for one of the session's channels."""
        offset, epoch = self.positions.get(channel, (None, None))
        return Envelope(MessageType.SUB, channel=channel, offset=offset, epoch=epoch)


def resumption_of(command: Envelope) -> Resumption | None:
    """What session an `auth` wants to take up, if any; MessageError(BAD_MESSAGE)."""
    data = command.value
    if not isinstance(data, dict) or "session" not in data:
        return None
    try:
        return msgspec.convert(data, Resumption)
    except msgspec.ValidationError as error:
        text = f'to take up a session the data of `auth` is {{"session": ID, "positions": {{...}}}}: {error}'
        raise MessageError(ErrorCode.BAD_MESSAGE, text) from None


def start_of(command: Envelope) -> StartPosition:
    """What a `sub` asks for; MessageError(BAD_MESSAGE) if that makes no sense."""
    if command.offset is not None:
        return StartPosition(command.offset, command.epoch)
    if command.data is None:
        return StartPosition(None, None)
    try:
        position = msgspec.convert(command.value, _Position)
    except msgspec.ValidationError as error:
        text = f'the data of `sub` is {{"last": N}}, {{"start": true}} or {{"snapshot": true}}: {error}'
        raise MessageError(ErrorCode.BAD_MESSAGE, text) from None
    if position.snapshot:
        return StartPosition(0, None, 1, stored=True, lines=position.lines)
    if position.last is None:
        return StartPosition(0, None, stored=True) if position.start else StartPosition(None, None)
    if not 1 <= position.last <= _MOST:
        raise MessageError(ErrorCode.BAD_MESSAGE, f"`last` is between 1 and {_MOST:,}, not {position.last}")
    return StartPosition(0, None, position.last, stored=True)


async def join_durable(
    context: Context, log: ChannelLog, wish: StartPosition, command: Envelope, encoding: Encoding, outbox: Outbox
) -> None:
    """Answer a `sub`, send what was wished for, activate the subscription. MessageError, BusError: nothing was sent.

    The answer's offset and epoch are where the history ends and live messages begin; its data says how the wish went:
    {"recovered": bool, "count": messages of history that follow}. Not recovered means that something may be missing; a
    `gap` frame then says what.
    """
    if wish.offset is None and context.namespaces.of(log.channel).inbox:
        cursor = await read_cursor(context.bus, log.channel)
        wish = StartPosition(cursor, None, stored=cursor == 0)
    with trio.move_on_after(context.settings.bus_timeout) as scope:
        await context.recovery.wait_steady(log)
    if scope.cancelled_caught:
        raise BusError(f"{log.channel} is being compared with its stream; try again")
    if _is_ahead(wish, log) and not await context.recovery.knows(log, wish.offset or 0):
        text = f"offset {wish.offset} lies in the future of {log.channel}, whose newest is {log.last}"
        raise MessageError(ErrorCode.BAD_OFFSET, text)
    history = with_snapshot(log, await _gather(context, log, wish))
    reached, epoch = log.last, log.epoch
    answer = Envelope(MessageType.OK, id=command.id, channel=log.channel, offset=reached, epoch=log.epoch)
    if wish.offset is not None:
        gaps = sum(envelope.type == MessageType.GAP for envelope in history)
        answer.data = {"recovered": not gaps, "count": len(history) - gaps}
    if command.id is None and encoding.dialect is not PLAIN:
        outbox.push(encoding.encode(answer))  # nobody asked by name, but where the history begins must be known
    elif (reply := encoding.dialect.encode_reply(command, answer)) is not None:
        outbox.push(encoding.frame(reply))
    await _send(context, history, encoding, outbox)
    await _catch_up(context, log, (reached, epoch), encoding, outbox)
    context.hub.activate(log.channel, encoding, outbox)


def _is_ahead(wish: StartPosition, log: ChannelLog) -> bool:
    return wish.offset is not None and wish.offset > log.last and wish.epoch in (None, log.epoch)


async def _gather(context: Context, log: ChannelLog, wish: StartPosition) -> list[Envelope]:
    """The history up to `log.last` as it is on return, with a `gap` wherever something is missing."""
    if wish.offset is None:
        return []
    if wish.lines is not None and log.task is not None:
        return [snapshot_frame(log, wish.lines)]
    if wish.epoch is not None and wish.epoch != log.epoch:
        # Its offset means nothing now: it is told so, and gets the whole new life.
        return [log.gap(0, 0, GapReason.EPOCH), *await _gather(context, log, StartPosition(0, None, stored=True))]
    if wish.newest is not None:
        kept = list(_fresh(log.since(log.floor) or []))
        if len(kept) >= wish.newest:
            return kept[-wish.newest :]
    epoch, reached = log.epoch, wish.offset
    history: list[Envelope] = []
    while True:
        more = await context.recovery.history(log, reached)
        if log.epoch != epoch:
            return [log.gap(0, 0, GapReason.EPOCH)]
        missed = more.gap is not None and not (wish.stored and not history)
        history += [more.gap, *more.messages] if missed and more.gap is not None else more.messages
        reached = more.reached
        if reached >= log.last:
            break
    if wish.newest is None:
        return list(_fresh(history, wish.offset))
    return [envelope for envelope in _fresh(history) if envelope.type == MessageType.PUB][-wish.newest :]


async def _catch_up(
    context: Context, log: ChannelLog, position: tuple[int, str], encoding: Encoding, outbox: Outbox
) -> None:
    """Send what came while the client was reading, until nothing is left; returns without a further checkpoint.

    `position`: offset and epoch up to which it has everything. An outage is waited out, for the answer has been given.
    """
    reached, epoch = position
    while outbox.closing is None:
        if log.epoch != epoch:
            await _send(context, with_snapshot(log, [log.gap(0, 0, GapReason.EPOCH)]), encoding, outbox)
            reached, epoch = 0, log.epoch
        if reached >= log.last:
            return
        try:
            more = await context.recovery.history(log, reached)
        except BusError:
            await trio.sleep(_RETRY_SECONDS)
            continue
        if log.epoch == epoch:
            reached = more.reached
            messages = [more.gap, *more.messages] if more.gap is not None else more.messages
            await _send(context, with_snapshot(log, list(_fresh(messages))), encoding, outbox)


async def _send(context: Context, messages: Sequence[Envelope], encoding: Encoding, outbox: Outbox) -> None:
    """Push messages at the pace at which the client reads, giving others their turn."""
    for start in range(0, len(messages), _CHUNK):
        if start:
            await trio.lowlevel.checkpoint()
        outbox.push(b"".join(encoding.encode(message) for message in messages[start : start + _CHUNK]))
        context.counters.deliveries += len(messages[start : start + _CHUNK])
        if outbox.backlog_bytes:
            await outbox.wait_drained()
            outbox.postpone(context.settings.idle_timeout)  # it reads: it lives


def _fresh(messages: Iterable[Envelope], follows: int | None = None) -> Iterator[Envelope]:
    """Leave out what has expired by its own `ttl`, and let each message follow on the one that is sent before it.

    `follows`: the offset the first one follows on, if that is not what the log says.
    """
    now = unix_ms()
    for message in messages:
        if message.type == MessageType.GAP:
            follows = message.data["to"]
            yield message
        elif is_expired(message, now):
            follows = message.previous if follows is None else follows
        elif follows is None or follows == message.previous:
            yield message
            follows = None
        else:
            yield msgspec.structs.replace(message, previous=follows)
            follows = None
