"""The hub: which connection hears which channel in this worker. One hub a worker, no locks, no awaits.

Subscribers of a channel with the same encoding form a group: a message is encoded once per group, and every member
is sent the same bytes. `receive` only appends to pending lists; the flusher takes them with `take_dirty`.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from fanline.engine.bus.interface import StreamPosition
from fanline.engine.bus.nats.jetstream import unix_ms_of
from fanline.engine.channels.log import ChannelLog, LogState
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespaces, SlowPolicy
from fanline.engine.sending.backlog import EncodedBatch, EncodedMessage, is_urgent
from fanline.engine.sending.outbox import Outbox
from fanline.engine.tasks.fold import TaskLog, check_task_message
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, from_producer
from fanline.protocol.errors import MessageError

_log = logging.getLogger("fanline.hub")


class FlushBatch(NamedTuple):
    """One group's messages to send: a snapshot, so members may come and go while it is being sent in slices."""

    members: list[Outbox]
    messages: EncodedBatch
    joiners: dict[Outbox, int]
    """Outbox -> how many of the messages, from the first, are not for it."""


class Group:
    """The subscribers of one channel in one encoding, and the messages they have not been sent yet."""

    __slots__ = ("encoding", "joiners", "members", "pending", "policy")

    def __init__(self, encoding: Encoding, policy: SlowPolicy) -> None:
        self.encoding = encoding
        self.policy = policy
        self.members: dict[Outbox, None] = {}
        self.pending: list[EncodedMessage] = []
        self.joiners: dict[Outbox, int] = {}  # came while messages were pending: how many of those are not theirs

    def add(self, outbox: Outbox) -> None:
        """Send an outbox all messages from now on."""
        if self.pending:
            self.joiners[outbox] = len(self.pending)
        else:
            self.members[outbox] = None

    def discard(self, outbox: Outbox) -> bool:
        """Send an outbox nothing more; whether it was here."""
        return self.members.pop(outbox, _ABSENT) is None or self.joiners.pop(outbox, None) is not None

    def __iter__(self) -> Iterator[Outbox]:
        return itertools.chain(self.members, self.joiners)

    def take(self) -> FlushBatch:
        """The pending messages and whose they are; joiners become members."""
        batch = FlushBatch(list(self.members), EncodedBatch(self.pending, self.encoding, self.policy), self.joiners)
        self.pending = []
        if self.joiners:
            self.members.update(dict.fromkeys(self.joiners))
            self.joiners = {}
        return batch


class _Channel:
    __slots__ = ("groups", "interest", "log")

    def __init__(self, log: ChannelLog | None) -> None:
        self.interest = 0  # subscriptions, active or on their way: the bus is joined while it is positive
        self.groups: tuple[Group, ...] = ()
        self.log = log  # of a durable channel


class Hub:
    """A subscription is taken in two steps, so that a client's `ok` always comes before the channel's first message:
    `subscribe` counts the interest (and tells when the bus has to be joined), `activate` lets messages through.
    """

    def __init__(
        self, counters: Counters, clock_ms: Callable[[], int], namespaces: Namespaces, *, log_limit: int = 1000
    ) -> None:
        self._channels: dict[str, _Channel] = {}
        self._dirty: list[Group] = []
        self._everyone: dict[Encoding, dict[Outbox, None]] = {}
        self._broadcasts: list[FlushBatch] = []
        self._counters = counters
        self._clock_ms = clock_ms
        self._namespaces = namespaces
        self._log_limit = log_limit
        self._warned_at = 0  # Unix seconds
        self.on_dirty: Callable[[], None] = lambda: None
        """Called when there is something to flush after there was nothing."""
        self.on_hole: Callable[[ChannelLog], None] = lambda _: None
        """Called when a durable channel misses something and has to be mended."""

    def enter(self, encoding: Encoding, outbox: Outbox) -> None:
        """A connection is there: urgent messages reach it."""
        self._everyone.setdefault(encoding, {})[outbox] = None

    def exit(self, encoding: Encoding, outbox: Outbox) -> None:
        """A connection is gone."""
        del self._everyone[encoding][outbox]

    def subscribe(self, channel: str) -> bool:
        """Count one more subscription; True if it is the channel's first."""
        entry = self._channels.get(channel)
        if entry is None:
            entry = self._channels[channel] = _Channel(self._new_log(channel))
            self._counters.channels += 1
        entry.interest += 1
        return entry.interest == 1

    def _new_log(self, channel: str) -> ChannelLog | None:
        namespace = self._namespaces.of(channel)
        if not namespace.durable:
            return None
        task = TaskLog(channel) if namespace.tasks else None  # what does not fit is told by the keeper, once
        return ChannelLog(channel, self._log_limit, task)

    def activate(self, channel: str, encoding: Encoding, outbox: Outbox) -> None:
        """Let a subscribed channel's messages reach this outbox: those received after this call, no others."""
        entry = self._channels[channel]
        group = next((group for group in entry.groups if group.encoding is encoding), None)
        if group is None:
            group = Group(encoding, self._namespaces.of(channel).slow)
            entry.groups += (group,)
        group.add(outbox)
        outbox.subscriptions += 1

    def deactivate(self, channel: str, outbox: Outbox) -> None:
        """Stop a channel's messages to this outbox; the subscription still counts."""
        entry = self._channels[channel]
        for group in entry.groups:
            if group.discard(outbox):
                outbox.subscriptions -= 1
                if not group.members and not group.joiners:
                    entry.groups = tuple(other for other in entry.groups if other is not group)

    def unsubscribe(self, channel: str, outbox: Outbox) -> bool:
        """Take one subscription back, active or not; True if it was the channel's last."""
        self.deactivate(channel, outbox)
        return self.release(channel)

    def release(self, channel: str) -> bool:
        """Count one subscription less, that was never activated; True if it was the channel's last."""
        entry = self._channels[channel]
        entry.interest -= 1
        if entry.interest:
            return False
        del self._channels[channel]
        self._counters.channels -= 1
        return True

    def log(self, channel: str) -> ChannelLog | None:
        """The log of a durable channel that somebody here is subscribed to."""
        entry = self._channels.get(channel)
        return None if entry is None else entry.log

    def logs(self) -> Iterator[ChannelLog]:
        """The logs of all durable channels that somebody here is subscribed to."""
        return (entry.log for entry in self._channels.values() if entry.log is not None)

    def receive(self, channel: str, payload: bytes, position: StreamPosition | None) -> None:
        """Take a producer's message from the bus: decode once, encode once per encoding in use, mark as dirty."""
        self._counters.messages_in += 1
        entry = self._channels.get(channel)
        if entry is None and not self._namespaces.of(channel).everywhere:
            return  # the last subscriber left while it was on its way
        if position is None or entry is None or entry.log is None:
            envelope = self.read_message(channel, payload, self._clock_ms())
            if envelope is not None:
                self.deliver(channel, (envelope,))
            return
        envelope = self.read_message(channel, payload, unix_ms_of(position.time))
        mending = entry.log.state is LogState.MENDING
        self.deliver(channel, entry.log.receive(envelope, position))
        if entry.log.state is LogState.MENDING and not mending:
            self.on_hole(entry.log)

    def read_message(self, channel: str, payload: bytes, time_ms: int) -> Envelope | None:
        """A producer's message as it goes to clients; None, counted and logged, if it is no message.

        What the bus knows stands over what the producer claims: the subject names the channel, the stream the offset.
        """
        try:
            envelope = from_producer(payload)
            if self._namespaces.of(channel).tasks:
                check_task_message(envelope)
        except MessageError as error:
            self.refuse(channel, error)
            return None
        envelope.channel = channel
        envelope.offset = envelope.previous = envelope.epoch = None
        if envelope.time is None:
            envelope.time = time_ms
        return envelope

    def refuse(self, channel: str, error: MessageError) -> None:
        """Count what a producer got wrong; at most one line a second, for it may be wrong very often."""
        self._counters.messages_bad += 1
        second = self._clock_ms() // 1000
        if second != self._warned_at:
            self._warned_at = second
            total = self._counters.messages_bad
            _log.warning("dropped a message on %s that a producer published (%d so far): %s", channel, total, error)

    def deliver(self, channel: str, envelopes: Iterable[Envelope]) -> None:
        """Send envelopes to all active subscribers of a channel, in order."""
        entry = self._channels.get(channel)
        for envelope in envelopes:
            if envelope.priority is not None and is_urgent(envelope):
                self._broadcast(envelope, entry)
            for group in entry.groups if entry is not None else ():
                if not group.pending:
                    self._mark_dirty(group)
                group.pending.append(EncodedMessage(group.encoding.encode(envelope), envelope))

    def _broadcast(self, envelope: Envelope, entry: _Channel | None) -> None:
        """Send an urgent message to everybody who does not get it as a subscriber."""
        if not self._dirty and not self._broadcasts:
            self.on_dirty()
        bare = msgspec.structs.replace(envelope, offset=None, previous=None)  # they keep no count of this channel
        subscribed = {outbox for group in entry.groups for outbox in group} if entry is not None else set()
        for encoding, outboxes in self._everyone.items():
            items = EncodedBatch([EncodedMessage(encoding.encode(bare), bare)], encoding, SlowPolicy.RESUME)
            self._broadcasts.append(FlushBatch([outbox for outbox in outboxes if outbox not in subscribed], items, {}))

    def take_dirty(self) -> list[FlushBatch]:
        """What is pending, group by group; it counts as sent from here on."""
        dirty, self._dirty = self._dirty, []
        broadcasts, self._broadcasts = self._broadcasts, []
        return broadcasts + [group.take() for group in dirty]

    def _mark_dirty(self, group: Group) -> None:
        if not self._dirty and not self._broadcasts:
            self.on_dirty()
        self._dirty.append(group)


_ABSENT = object()
