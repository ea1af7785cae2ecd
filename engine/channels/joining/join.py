"""Joining a channel: answer, history, live, as one sequence without a hole and without a repeat.

`Joining.join` reads from top to bottom in the order of events: the channel is held open, its log is up to date, the
history is gathered; only then is the client answered, sent the history, and activated in the very step in which nothing
is left. Whatever fails before the answer has changed nothing.

There is no hold-back queue. The channel's log is the one ordered truth in this worker: the client is sent what the log
(or the stream before it) has after its offset, as fast as it reads. A slow client just takes longer; it is never given
a gap because others publish faster than it reads.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio
from msgspec.structs import replace

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.history import PIECE_BYTES, History, Piece
from fanline.engine.channels.durable.log import stored_offset
from fanline.engine.channels.durable.log_budget import up_to, weight_of
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.fresh import following, fresh
from fanline.engine.channels.inbox import read_cursor
from fanline.engine.channels.joining.history_sender import HistorySender
from fanline.engine.channels.joining.snapshots import SharedSnapshots
from fanline.engine.channels.joining.start import After, Live, StartPosition, StoredMessages, TaskSnapshot
from fanline.engine.channels.subscription import ChannelInterest, ChannelSubscription, Router
from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.sending.outbox import Outbox
from fanline.engine.slices import Turns
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import Subscribed
from fanline.protocol.messages.commands import DEFAULT_LINES
from fanline.protocol.messages.notices import GapReason

_RETRY_SECONDS = 0.2

Answer = Callable[[Envelope], None]
"""Sends the `ok` of a `sub`."""


class Joining:
    """How clients of one worker join channels. `timeout`: seconds a channel may take to be compared with its stream;
    `patience`: seconds of life that a client proves by reading its history.
    """

    def __init__(
        self,
        bus: Bus,
        router: Router,
        recovery: Recovery,
        history: History,
        counters: Counters,
        faults: Faults,
        *,
        timeout: float,
        patience: float,
        turns: Turns | None = None,
        renew: Mapping[str, Callable[[], Awaitable[None]]] = {},
    ) -> None:
        """`renew`: for a channel, what brings its newest message up to date for a client that comes."""
        self._renew = renew
        self._bus = bus
        self._router = router
        self._recovery = recovery
        self._history = history
        self._faults = faults
        self._timeout = timeout
        self._sender = HistorySender(counters, faults, turns or Turns(), patience=patience)
        self._snapshots = SharedSnapshots()

    def subscription(self, channel: str, encoding: Encoding, outbox: Outbox) -> ChannelSubscription:
        """A subscription that holds nothing yet; `join` it."""
        return ChannelSubscription(self._router, channel, encoding, outbox)

    async def join(self, subscription: ChannelSubscription, start: StartPosition, answer: Answer) -> None:
        """Answer a `sub`, send the history that was asked for, and activate the subscription.

        MessageError, BusError: nothing was sent, and a subscription that was active still is.
        """
        async with subscription as channel:
            durable = channel.durable
            if durable is None:
                answer(Envelope(MessageType.OK, channel=channel.name))
            else:
                with self._edge(durable):
                    await self._renewed(durable, start)
                    await self._wait_steady(durable)
                    start = await self._settled(durable, start)
                    await self._check(durable, start)
                    history, lives = await self._gather(durable, start), durable.lives
                    history, owed = self._with_snapshot(durable, history, owed=False)
                    told = durable.epoch.name
                subscription.pause()  # in one step with the answer: what comes from here on is sent by `_catch_up`
                answer(_answer(durable, start, history))
                await self._sender.send(subscription, history.messages, history.weight)
                await self._catch_up(subscription, durable, history.reached, lives, told, owed=owed)
            subscription.activate()

    async def wait_read(self, outbox: Outbox) -> None:
        """Wait until a client has read what it was sent: a large answer never closes a connection for slowness."""
        await self._sender.wait_read(outbox)

    @asynccontextmanager
    async def steady(self, name: str) -> AsyncIterator[DurableChannel]:
        """A durable channel that is up to date, and kept so inside the block, without a subscriber. BusError."""
        async with ChannelInterest(self._router, name) as channel:
            assert channel.durable is not None
            await self._wait_steady(channel.durable)
            yield channel.durable

    @contextmanager
    def _edge(self, durable: DurableChannel) -> Iterator[None]:
        """A fault before the answer is that of one `sub`, not of its connection. BusError."""
        try:
            yield
        except (MessageError, BusError):
            raise
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.report(durable.name, "it cannot be joined")
            raise BusError(f"{durable.name} cannot be joined: a fault of the server, whose log says more") from None

    async def _wait_steady(self, durable: DurableChannel) -> None:
        """Wait until a channel's log is up to date. BusError."""
        with trio.move_on_after(self._timeout):
            await self._recovery.wait_steady(durable)
            return
        raise BusError(f"{durable.name} is being compared with its stream; try again")

    # --- before the answer ----------------------------------------------------------------------------------------

    async def _renewed(self, durable: DurableChannel, start: StartPosition) -> None:
        """Bring the newest message up to date before it is read."""
        renew = self._renew.get(durable.name)
        if renew is not None and isinstance(start, StoredMessages | TaskSnapshot):
            await renew()
            await self._wait_steady(durable)
            await self._recovery.knows(durable, 0)  # it may be stored, and still on its way to us

    async def _settled(self, durable: DurableChannel, start: StartPosition) -> StartPosition:
        """The start position that this channel makes of what the client has asked for."""
        if isinstance(start, TaskSnapshot) and durable.fold is None:
            return StoredMessages(newest=1)
        if not isinstance(start, Live) or not durable.namespace.inbox:
            return start
        # In an inbox, a client that names no position begins behind what its user has acknowledged.
        epoch = durable.epoch  # it may change meanwhile
        cursor = await read_cursor(self._bus, durable.name, epoch)
        return After(cursor, epoch.name) if cursor else StoredMessages()

    async def _check(self, durable: DurableChannel, start: StartPosition) -> None:
        """Refuse an offset that the channel never had."""
        if not isinstance(start, After) or start.offset <= durable.last:
            return
        if not durable.epoch.covers(start.epoch, start.offset):
            return  # it is of another epoch, and is answered with a gap
        if not await self._recovery.knows(durable, start.offset):
            text = f"offset {start.offset} lies in the future of {durable.name}, whose newest is {durable.last}"
            raise MessageError(ErrorCode.BAD_OFFSET, text)

    async def _gather(self, durable: DurableChannel, start: StartPosition) -> Piece:
        """The history, with a `gap` wherever something is missing: up to `durable.last` as it is on return, or the
        first part of it if it is long.
        """
        match start:
            case Live():
                return Piece([], durable.last)
            case TaskSnapshot(lines):
                snapshot = self._snapshots.of(durable, lines)
                return Piece([snapshot], durable.last, weight=weight_of(snapshot))
            case StoredMessages(newest):
                if newest is not None:
                    return await self._newest(durable, newest)
                return _chained(await self._everything_after(durable, 0, stored=True), 0)
            case After(offset, epoch):
                if durable.epoch.covers(epoch, offset):
                    return _chained(await self._everything_after(durable, offset), offset)
                # Its offset is void now: a gap says so, and the client gets everything since.
                everything = await self._gather(durable, StoredMessages())
                return everything._replace(messages=[durable.gap(0, 0, GapReason.EPOCH), *everything.messages])

    async def _newest(self, durable: DurableChannel, newest: int) -> Piece:
        """The newest messages that are stored, this many."""
        kept = fresh(durable.log.all(), unix_ms())
        if len(kept) >= newest:
            return _first_part(kept[-newest:], durable.last)
        lives = durable.lives
        everything = await self._everything_after(durable, 0, stored=True)
        if durable.lives != lives:
            return everything  # the gap that says so
        if everything.reached < durable.last:
            everything = await self._everything_after(durable, await self._before_newest(durable, newest), stored=True)
        kept = [each for each in fresh(everything.messages, unix_ms()) if each.type == MessageType.PUB]
        return everything._replace(messages=kept[-newest:] if everything.reached >= durable.last else kept)

    async def _before_newest(self, durable: DurableChannel, newest: int) -> int:
        """The offset after which the newest messages come, this many, of a history that is too long to be held."""
        lives, reached, offsets = durable.lives, 0, deque[int](maxlen=newest)
        while reached < durable.last:
            piece = await self._history.after(durable, reached)
            if durable.lives != lives:
                raise BusError(f"the stream of {durable.name} was recreated; try again")
            offsets.extend(map(stored_offset, fresh(piece.messages, unix_ms())))
            reached = piece.reached
        return offsets[0] - 1 if offsets else reached

    async def _everything_after(self, durable: DurableChannel, offset: int, *, stored: bool = False) -> Piece:
        """The messages after an offset, with their gaps; the first part of them if they are long. `stored`: what is
        gone before the first of them is no gap.
        """
        lives, history, weight = durable.lives, list[Envelope](), 0
        while True:
            piece = await self._history.after(durable, offset)
            if durable.lives != lives:
                return Piece([durable.gap(0, 0, GapReason.EPOCH)], 0)  # all that it holds is still to come
            history += piece.messages if stored and not history else piece.all
            offset, weight = piece.reached, weight + piece.weight
            if offset >= durable.last or weight >= PIECE_BYTES:
                return Piece(history, min(offset, durable.last), weight=weight)

    # --- after the answer -----------------------------------------------------------------------------------------

    async def _catch_up(
        self,
        subscription: ChannelSubscription,
        durable: DurableChannel,
        reached: int,
        lives: int,
        told: str,
        *,
        owed: bool,
    ) -> None:
        """Send what the client does not have yet, until nothing is left: the rest of a long history, and what came
        while the client was reading. Returns without a further checkpoint.

        The client has everything up to the offset `reached` of life number `lives`; `owed`: but for the snapshot after
        a gap. It knows of the epoch `told`. An outage is waited out, for the client has been answered.
        """
        while subscription.outbox.life.is_open:
            if durable.lives != lives:
                gap = durable.gap(0, 0, GapReason.EPOCH)
                reached, lives, told, owed = 0, durable.lives, durable.epoch.name, False
                await self._sender.send(subscription, durable.with_snapshot([gap]), 0)
            if reached >= durable.last:
                return
            try:
                piece = await self._history.after(durable, reached)
            except BusError:
                await trio.sleep(_RETRY_SECONDS)
                continue
            if durable.lives == lives:
                reached = piece.reached
                messages, told = _telling(durable.epoch.name, told, fresh(piece.all, unix_ms()))
                piece = piece._replace(messages=messages)
                piece, owed = self._with_snapshot(durable, piece, owed=owed)
                await self._sender.send(subscription, piece.messages, piece.weight)

    def _with_snapshot(self, durable: DurableChannel, piece: Piece, *, owed: bool) -> tuple[Piece, bool]:
        """On a task channel a snapshot follows a gap, once nothing older is left to be sent. And whether it is still
        owed.
        """
        owed = owed or (durable.fold is not None and any(each.type == MessageType.GAP for each in piece.messages))
        if not owed or piece.reached < durable.last or durable.folded > durable.last:
            return piece, owed  # in the last case the recovery that is under way sends it
        snapshot = self._snapshots.of(durable, DEFAULT_LINES)
        messages, weight = [*piece.messages, snapshot], piece.weight + weight_of(snapshot)
        return piece._replace(messages=messages, weight=weight), False


def _chained(history: Piece, offset: int) -> Piece:
    """A history for a client that has everything up to `offset`."""
    return history._replace(messages=following(history.messages, offset, unix_ms()))


def _telling(epoch: str, told: str, messages: list[Envelope]) -> tuple[list[Envelope], str]:
    """The messages for a client that knows of the epoch `told`, and the one it knows of with them: if another has
    begun, the first message says so. The one in the log that says it may be out of the log, or have expired.
    """
    first = next((number for number, each in enumerate(messages) if each.type == MessageType.PUB), None)
    if epoch == told or first is None:
        return messages, told
    return [*messages[:first], replace(messages[first], epoch=epoch), *messages[first + 1 :]], epoch


def _first_part(messages: Sequence[Envelope], reached: int) -> Piece:
    """The first of these messages, with which a client that gets all of them has everything up to `reached`."""
    first, weight = up_to(messages, PIECE_BYTES)
    is_all = len(first) == len(messages)
    return Piece(first, reached if is_all else stored_offset(first[-1]), weight=weight)


def _answer(durable: DurableChannel, start: StartPosition, history: Piece) -> Envelope:
    """The `ok`: its offset and epoch are where the history ends, or its first part, and what follows counts as live; if
    there was something to recover, its data says whether all of it follows.
    """
    answer = Envelope(MessageType.OK, channel=durable.name, offset=history.reached, epoch=durable.epoch.name)
    if not isinstance(start, Live):
        gaps = sum(envelope.type == MessageType.GAP for envelope in history.messages)
        answer.data = Subscribed(recovered=not gaps, count=len(history.messages) - gaps).fields()
    return answer
