"""The hub: which connection hears which channel in this worker. One hub a worker, no locks, no awaits.

Subscribers of a channel that are on the same wire form a group: a message is encoded once per group and every member
is sent the same bytes. `receive` only appends to pending lists; the flusher takes them with `take_dirty`.
"""

import logging
from collections.abc import Callable

from engine.counters import Counters
from engine.outbox import Outbox
from protocol.envelope import Envelope, from_producer
from protocol.errors import MessageError
from protocol.wire import Wire

_log = logging.getLogger("fanline.hub")


class Group:
    """The subscribers of one channel on one wire, and the frames they have not been sent yet."""

    __slots__ = ("members", "pending", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.members: dict[Outbox, None] = {}
        self.pending: list[bytes] = []


class _Channel:
    __slots__ = ("groups", "interest")

    def __init__(self) -> None:
        self.interest = 0  # subscriptions, active or on their way: the bus is joined while it is positive
        self.groups: tuple[Group, ...] = ()


class Hub:
    """A subscription is taken in two steps, so that a client's `ok` always comes before the channel's first message:
    `subscribe` counts the interest (and tells when the bus has to be joined), `activate` lets messages through.
    """

    def __init__(self, counters: Counters, clock_ms: Callable[[], int]) -> None:
        self._channels: dict[str, _Channel] = {}
        self._dirty: list[Group] = []
        self._counters = counters
        self._clock_ms = clock_ms
        self.on_dirty: Callable[[], None] = lambda: None
        """Called when there is something to flush after there was nothing."""

    def subscribe(self, channel: str) -> bool:
        """Count one more subscription; True if it is the channel's first."""
        entry = self._channels.get(channel)
        if entry is None:
            entry = self._channels[channel] = _Channel()
            self._counters.channels += 1
        entry.interest += 1
        return entry.interest == 1

    def activate(self, channel: str, wire: Wire, outbox: Outbox) -> None:
        """Let a subscribed channel's messages reach this outbox from now on."""
        entry = self._channels[channel]
        group = next((group for group in entry.groups if group.wire is wire), None)
        if group is None:
            group = Group(wire)
            entry.groups += (group,)
        group.members[outbox] = None
        outbox.subscriptions += 1

    def unsubscribe(self, channel: str, outbox: Outbox) -> bool:
        """Take one subscription back, active or not; True if it was the channel's last."""
        entry = self._channels[channel]
        for group in entry.groups:
            if group.members.pop(outbox, _ABSENT) is None:
                outbox.subscriptions -= 1
                if not group.members:
                    entry.groups = tuple(other for other in entry.groups if other is not group)
        entry.interest -= 1
        if entry.interest:
            return False
        del self._channels[channel]
        self._counters.channels -= 1
        return True

    def receive(self, channel: str, payload: bytes) -> None:
        """Take a producer's message from the bus: decode once, encode once per wire in use, mark as dirty."""
        self._counters.messages_in += 1
        entry = self._channels.get(channel)
        if entry is None:
            return  # the last subscriber left while it was on its way
        try:
            envelope = self._stamp(channel, from_producer(payload))
        except MessageError as error:
            self._counters.messages_bad += 1
            _log.warning("dropped a message on %s that a producer published: %s", channel, error)
            return
        for group in entry.groups:
            if not group.pending:
                self._mark_dirty(group)
            group.pending.append(group.wire.encode(envelope))

    def take_dirty(self) -> list[tuple[Group, list[bytes]]]:
        """The groups with pending frames, and those frames; they count as sent from here on."""
        dirty, self._dirty = self._dirty, []
        batches = [(group, group.pending) for group in dirty]
        for group in dirty:
            group.pending = []
        return batches

    def _mark_dirty(self, group: Group) -> None:
        if not self._dirty:
            self.on_dirty()
        self._dirty.append(group)

    def _stamp(self, channel: str, envelope: Envelope) -> Envelope:
        """What the bus knows stands over what a producer claims: the subject names the channel, not the envelope."""
        envelope.channel = channel
        envelope.offset = envelope.previous = envelope.epoch = None
        if envelope.time is None:
            envelope.time = self._clock_ms()
        return envelope


_ABSENT = object()
