"""The hub: which connection gets which channel in this worker. One hub per worker, no locks, no awaits.

`receive` takes the bus's messages and only appends to the pending lists of groups; the flusher takes them with
`take_dirty`, at the end of the burst or soon after. Subscriptions (subscription.py) open and close channels here, and
add themselves to groups.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress

import trio

from fanline.engine.bus.stored import StreamPosition
from fanline.engine.channels.audience.broadcasts import Broadcasts, Everyone
from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.audience.omissions import FindOutbox, Omissions
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.channels.durable.log_budget import LogBudget
from fanline.engine.channels.group import FlushBatch, Group, Left
from fanline.engine.channels.messages import MessageReader
from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.sending.batch import is_urgent
from fanline.engine.sending.outbox import Outbox
from fanline.engine.tasks.fold import TaskFold
from fanline.protocol.channels import is_pattern, pattern_of
from fanline.protocol.dialects.plain.commands import NEW_MESSAGE
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.notices import GapData, GapReason


class Hub:
    """`everyone` names all connections, for urgent messages, and `find` one by its public id; `budget` bounds the logs
    of all durable channels.
    """

    def __init__(
        self,
        namespaces: Namespaces,
        reader: MessageReader,
        counters: Counters,
        faults: Faults,
        everyone: Everyone,
        find: FindOutbox,
        *,
        log_limit: int = 1000,
        budget: LogBudget | None = None,
    ) -> None:
        self._namespaces = namespaces
        self._reader = reader
        self._counters = counters
        self._faults = faults
        self._log_limit = log_limit
        self._budget = budget or LogBudget()
        self._channels: dict[str, Channel] = {}
        self._omissions = Omissions(self._channels, find)
        self._broadcasts = Broadcasts(everyone, self._omissions, faults)
        self._dirty: list[Group] = []
        self._flushing: list[Group] = []
        self._taken: trio.Event | None = None  # set when what is pending is taken, if anybody waits for it
        self.pending_bytes = 0
        """Bytes of the messages that `receive` has taken since the last flush."""
        self.on_dirty: Callable[[], None] = lambda: None
        """Called by `deliver` when there is something to flush. What `receive` leaves is flushed after its burst."""
        self.flushes = 0
        """Flushes that have begun."""
        self.on_flushed: Callable[[], None] = lambda: None
        """Called when what was taken has been sent, or is in backlogs."""
        self.on_said: Callable[[Channel, Envelope], None] = lambda channel, envelope: None
        """Called with each message of a chat that a client says to the others of its channel."""
        self.on_hole: Callable[[DurableChannel], None] = lambda _: None
        """Called when a durable channel misses something and has to be recovered."""

    # --- channels ------------------------------------------------------------------------------------------------

    def open(self, name: str) -> Channel:
        """Count one more interest in a channel; `interest == 1`: it is the first, and the bus has to be joined."""
        channel = self._channels.get(name)
        if channel is None:
            namespace = self._namespaces.of(name)
            channel = self._channels[name] = Channel(name, namespace, self._new_durable(name, namespace))
            self._counters.channels += 1
        channel.interest += 1
        return channel

    def close(self, channel: Channel) -> bool:
        """Count one interest less; True if it was the last, and the bus has to be left."""
        channel.interest -= 1
        if channel.interest:
            return False
        del self._channels[channel.name]
        self._counters.channels -= 1
        if channel.durable is not None:
            channel.durable.close()
        return True

    def _new_durable(self, name: str, namespace: Namespace) -> DurableChannel | None:
        if not namespace.durable or is_pattern(name):
            return None
        # What does not fit is reported by the monitor, once.
        fold = TaskFold(name, on_fault=self._faults.report) if namespace.tasks else None
        return DurableChannel(name, namespace, self._log_limit, fold, self._budget)

    def durable_channels(self) -> Iterator[DurableChannel]:
        """All durable channels that are open here."""
        return (channel.durable for channel in self._channels.values() if channel.durable is not None)

    def names(self) -> list[str]:
        """The channels and patterns that have subscriptions here."""
        return list(self._channels)

    def audience(self, name: str, without: Outbox | None = None) -> int:
        """How many subscribers a channel has here, not counting those of patterns, nor this one."""
        channel = self._channels.get(name)
        groups = () if channel is None else channel.groups
        return sum(len(group) - (without is not None and without in group) for group in groups)

    def interest(self, name: str) -> int:
        """How many subscriptions a channel, or a pattern, has here."""
        channel = self._channels.get(name)
        return 0 if channel is None else channel.interest

    def is_open(self, durable: DurableChannel) -> bool:
        """Whether this is still its channel: all may have left, and those who came after them have a new one."""
        channel = self._channels.get(durable.name)
        return channel is not None and channel.durable is durable

    # --- messages ------------------------------------------------------------------------------------------------

    def receive(self, name: str, payload: bytes, position: StreamPosition | None) -> None:
        """Take a producer's message from the bus: decode once, encode once per encoding in use, mark as dirty. Never
        raises.
        """
        self._counters.messages_in += 1
        self.pending_bytes += len(payload)
        channel = self._channels.get(name)
        try:
            namespace = self._namespaces.of(name) if channel is None else channel.namespace
            if channel is None and not namespace.everywhere:
                return  # the last subscriber left while it was on its way
            envelope = self._reader.read(name, namespace, payload, position)
            if position is None or channel is None or channel.durable is None:
                if envelope is not None:
                    self._deliver(channel, namespace, (envelope,))
                return
            self._receive_stored(channel, channel.durable, envelope, position)
        except Exception:  # noqa: BLE001  # the edge of one message
            self._faults.report(name, "a message cannot be delivered")
            if channel is not None and channel.durable is not None and position is not None:
                self.give_up(channel.durable, position.offset)

    def _receive_stored(
        self, channel: Channel, durable: DurableChannel, envelope: Envelope | None, position: StreamPosition
    ) -> None:
        was_recovering = durable.state is DurableState.RECOVERING
        try:
            self._deliver(channel, channel.namespace, durable.receive(envelope, position))
        finally:  # whatever happens, a channel that is to be recovered is
            if durable.state is DurableState.RECOVERING and not was_recovering:
                self.on_hole(durable)

    def deliver(self, durable: DurableChannel, envelopes: Iterable[Envelope]) -> None:
        """Send what a durable channel has handed out to its subscribers, in order; to none if it is closed."""
        if self.is_open(durable):
            self._deliver(self._channels[durable.name], durable.namespace, envelopes)
            self._tell_of_dirt()

    def announce(self, groups: Iterable[Group], envelopes: Sequence[Envelope]) -> None:
        """Send messages that belong to no channel to the members of some groups, in order."""
        for group in groups:
            if not group.pending:
                self._dirty.append(group)
            for envelope in envelopes:
                group.append(envelope)
        self._tell_of_dirt()

    def give_up(self, durable: DurableChannel, until: int = 0) -> None:
        """Tell the subscribers that we fail to deliver what comes next, up to an offset (0: unknown). Never raises."""
        try:
            if durable.state is not DurableState.OPENING:  # no subscribers yet
                self.deliver(durable, durable.give_up(until))
        except Exception:  # noqa: BLE001  # our own fault
            self._faults.report(durable.name, "its subscribers cannot be told that something is missing")

    def _deliver(self, channel: Channel | None, namespace: Namespace, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.priority is not None and is_urgent(envelope, namespace):
                self._broadcasts.append(envelope)
            if channel is not None:
                selective = envelope.extra is not None or envelope.excluded is not None
                if envelope.excluded is not None and envelope.event == NEW_MESSAGE:
                    self.on_said(channel, envelope)
                for group in channel.groups:
                    self._append(channel, group, envelope, self._omissions.of(envelope, group) if selective else ())

    def _append(self, channel: Channel, group: Group, envelope: Envelope, left_out: Collection[Outbox]) -> None:
        if not group.pending:
            self._dirty.append(group)
        try:
            group.append(envelope, left_out)
        except Exception:  # noqa: BLE001  # our own fault, and that of one encoding only
            self._faults.report(channel.name, "a message cannot be encoded")
            with suppress(Exception):  # the snapshot may be as bad
                for substitute in channel.substitutes(envelope):
                    group.append(substitute)

    def _tell_of_dirt(self) -> None:
        if self.is_dirty:
            self.on_dirty()

    # --- whole namespaces ----------------------------------------------------------------------------------------

    def overhear(self, name: str, payload: bytes, position: StreamPosition | None) -> None:
        """Take a message of a namespace with subscribers to all of it, unfolded and without a place in a chain. Never
        raises. Subscribers of the channel itself get it through `receive`.
        """
        pattern = self._channels.get(pattern_of(name))
        if pattern is None:
            return  # the last subscriber left while it was on its way
        self._counters.messages_in += 1
        self.pending_bytes += len(payload)
        try:
            envelope = self._reader.read(name, pattern.namespace, payload, position)
            if envelope is None:
                return
            if position is not None and envelope.type == MessageType.PUB:
                envelope.offset = position.offset
            for group in pattern.groups:
                self._append(pattern, group, envelope, self._omissions.of(envelope, group, by_pattern=True))
        except Exception:  # noqa: BLE001  # the edge of one message
            self._faults.report(name, "a message cannot be delivered")

    def bus_is_back(self) -> None:
        """Tell subscribers of whole namespaces that messages may be missing: nothing is read again for them."""
        for channel in self._channels.values():
            if is_pattern(channel.name):
                data = GapData(reason=GapReason.OUTAGE).fields()
                gap = Envelope(MessageType.GAP, channel=channel.name, data=data, time=unix_ms())
                self._deliver(channel, channel.namespace, [gap])
        self._tell_of_dirt()

    # --- flushing ------------------------------------------------------------------------------------------------

    @property
    def is_dirty(self) -> bool:
        """Whether anything is pending."""
        return bool(self._dirty or self._broadcasts.pending)

    def has_few_pushes(self, most: int) -> bool:
        """Whether the pending messages go to at most `most` connections, counting a connection with several channels
        for each of them.
        """
        if self._broadcasts.pending or len(self._dirty) > most:
            return False
        return sum([len(group) for group in self._dirty]) <= most

    def pending_taken(self) -> trio.Event:
        """Is set when what is pending now has been taken. For callers that deliver much, lest it pile up."""
        taken = trio.Event() if self._taken is None else self._taken
        if self.is_dirty:
            self._taken = taken
        else:
            taken.set()
        return taken

    def take_dirty(self) -> list[FlushBatch]:
        """What is pending, group by group; call `flushed` when it has been sent."""
        self.pending_bytes = 0
        if self._taken is not None:
            self._taken.set()
            self._taken = None
        dirty, self._dirty = self._dirty, []
        self._flushing = dirty
        self.flushes += 1
        left: Left = set()
        return self._broadcasts.take() + [batch for group in dirty for batch in group.take(left)]

    def flushed(self) -> None:
        """What was taken has been sent."""
        for group in self._flushing:
            group.flushing = ()
        self._flushing = []
        self.on_flushed()
