"""Joining a channel: answer, history, live, as one sequence without a hole and without a repeat.

`Joining.join` reads from top to bottom as it happens: the channel is held open, its log is up to date, the history is
gathered; only then the client is answered, sent the history, and activated in the very step in which nothing is left.
Whatever fails before the answer has changed nothing.

There is no hold-back queue. The channel's log is the one ordered truth in this worker: the client is sent what the log
(or the stream before it) has after its offset, as fast as it reads. A slow client just takes longer; it is never given
a gap because others publish faster than it reads.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import trio

from fanline.engine.bus.interface import Bus, BusError
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.history import History
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.fresh import following, fresh
from fanline.engine.channels.inbox import read_cursor
from fanline.engine.channels.snapshots import SharedSnapshots
from fanline.engine.channels.start import After, Live, StartPosition, StoredMessages, TaskSnapshot
from fanline.engine.channels.subscription import ChannelInterest, ChannelSubscription, Router
from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages import GapReason, Subscribed

_CHUNK = 256  # messages pushed before the client must have taken them
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
    ) -> None:
        self._bus = bus
        self._router = router
        self._recovery = recovery
        self._history = history
        self._counters = counters
        self._faults = faults
        self._timeout = timeout
        self._patience = patience
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
                    start = await self._settled(durable, start)
                    await self._wait_steady(durable)
                    await self._check(durable, start)
                    history = durable.with_snapshot(await self._gather(durable, start))
                reached, epoch = durable.last, durable.epoch
                subscription.pause()  # in one step with the answer: what comes from here on is sent by `_catch_up`
                answer(_answer(durable, start, history))
                await self._send(subscription, history)
                await self._catch_up(subscription, durable, reached, epoch)
            subscription.activate()

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

    async def _settled(self, durable: DurableChannel, start: StartPosition) -> StartPosition:
        """The start position that this channel makes of what the client has asked for."""
        if isinstance(start, TaskSnapshot) and durable.fold is None:
            return StoredMessages(newest=1)
        if not isinstance(start, Live) or not durable.namespace.inbox:
            return start
        # In an inbox, a client that names no position begins behind what its user has acknowledged.
        cursor = await read_cursor(self._bus, durable.name)
        return After(cursor) if cursor else StoredMessages()

    async def _check(self, durable: DurableChannel, start: StartPosition) -> None:
        """Refuse an offset that the channel never had."""
        if not isinstance(start, After) or start.offset <= durable.last or start.epoch not in (None, durable.epoch):
            return
        if not await self._recovery.knows(durable, start.offset):
            text = f"offset {start.offset} lies in the future of {durable.name}, whose newest is {durable.last}"
            raise MessageError(ErrorCode.BAD_OFFSET, text)

    async def _gather(self, durable: DurableChannel, start: StartPosition) -> list[Envelope]:
        """The history up to `durable.last` as it is on return, with a `gap` wherever something is missing."""
        match start:
            case Live():
                return []
            case TaskSnapshot(lines):
                return [self._snapshots.of(durable, lines)]
            case StoredMessages(newest):
                return await self._stored(durable, newest)
            case After(offset, epoch):
                if epoch in (None, durable.epoch):
                    return following(await self._everything_after(durable, offset), offset, unix_ms())
                # Its offset means nothing now: it is told so, and gets everything since.
                return [durable.gap(0, 0, GapReason.EPOCH), *await self._gather(durable, StoredMessages())]

    async def _stored(self, durable: DurableChannel, newest: int | None) -> list[Envelope]:
        """All stored messages, or the newest of them."""
        if newest is None:
            return following(await self._everything_after(durable, 0, stored=True), 0, unix_ms())
        kept = fresh(durable.log.all(), unix_ms())
        if len(kept) < newest:
            epoch = durable.epoch
            everything = fresh(await self._everything_after(durable, 0, stored=True), unix_ms())
            if durable.epoch != epoch:
                return everything  # the gap that says so
            kept = [envelope for envelope in everything if envelope.type == MessageType.PUB]
        return kept[-newest:]

    async def _everything_after(self, durable: DurableChannel, offset: int, *, stored: bool = False) -> list[Envelope]:
        """All messages after an offset, with their gaps. `stored`: what is gone before the first of them is no gap."""
        epoch, history = durable.epoch, list[Envelope]()
        while True:
            piece = await self._history.after(durable, offset)
            if durable.epoch != epoch:
                return [durable.gap(0, 0, GapReason.EPOCH)]
            history += piece.messages if stored and not history else piece.all
            offset = piece.reached
            if offset >= durable.last:
                return history

    # --- after the answer -----------------------------------------------------------------------------------------

    async def _catch_up(
        self, subscription: ChannelSubscription, durable: DurableChannel, reached: int, epoch: str
    ) -> None:
        """Send what came while the client was reading, until nothing is left; returns without a further checkpoint.

        The client has everything up to the offset `reached` of `epoch`. An outage is waited out, for the client has
        been answered.
        """
        while subscription.outbox.life.is_open:
            if durable.epoch != epoch:
                gap = durable.gap(0, 0, GapReason.EPOCH)
                reached, epoch = 0, durable.epoch
                await self._send(subscription, durable.with_snapshot([gap]))
            if reached >= durable.last:
                return
            try:
                piece = await self._history.after(durable, reached)
            except BusError:
                await trio.sleep(_RETRY_SECONDS)
                continue
            if durable.epoch == epoch:
                reached = piece.reached
                await self._send(subscription, durable.with_snapshot(fresh(piece.all, unix_ms())))

    async def _send(self, subscription: ChannelSubscription, messages: Sequence[Envelope]) -> None:
        """Push messages at the pace at which the client reads, giving others their turn."""
        outbox = subscription.outbox
        for start in range(0, len(messages), _CHUNK):
            if start:
                await trio.lowlevel.checkpoint()
            chunk = messages[start : start + _CHUNK]
            outbox.push(b"".join(self._encoded(subscription, message) for message in chunk))
            self._counters.deliveries += len(chunk)
            if outbox.backlog_bytes:
                await outbox.wait_drained()
                outbox.life.extend(self._patience)  # it reads: it lives

    def _encoded(self, subscription: ChannelSubscription, message: Envelope) -> bytes:
        encoding, channel = subscription.encoding, subscription.channel
        try:
            return encoding.encode(message)
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.report(channel.name, "a message cannot be encoded")
            frames: list[bytes] = []
            with suppress(Exception):  # the snapshot may be as bad
                frames.extend(encoding.encode(substitute) for substitute in channel.substitutes(message))
            return b"".join(frames)


def _answer(durable: DurableChannel, start: StartPosition, history: Sequence[Envelope]) -> Envelope:
    """The `ok`: its offset and epoch are where the history ends and live messages begin; if there was something to
    recover, its data says whether all of it follows.
    """
    answer = Envelope(MessageType.OK, channel=durable.name, offset=durable.last, epoch=durable.epoch)
    if not isinstance(start, Live):
        gaps = sum(envelope.type == MessageType.GAP for envelope in history)
        answer.data = Subscribed(recovered=not gaps, count=len(history) - gaps).fields()
    return answer
