"""The laws of a durable channel, against a plain model of a stream and of a bus that loses, repeats and comes late."""

import itertools
import sys
from collections.abc import Sequence

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fanline.engine.bus.stored import Epoch, StreamPosition
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.namespaces import Namespace
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.notices import GapReason

CHANNEL = "task:1"


class ModelStream:
    """What JetStream is to one channel: sequences shared with other channels, the oldest dropped first."""

    def __init__(self, epoch: str, length: int) -> None:
        self.epoch = Epoch(epoch)
        self.length = length
        self.last = 0
        self.ever: list[int] = []
        """Offsets of all readable messages of the channel in this life."""
        self.unreadable: set[int] = set()
        self.kept: list[int] = []

    def publish(self, *, readable: bool) -> tuple[Envelope | None, StreamPosition]:
        self.last += 1
        position = StreamPosition(self.last, self.kept[-1] if self.kept else 0, "")
        self.kept = [*self.kept, self.last][-self.length :]
        if readable:
            self.ever.append(self.last)
        else:
            self.unreadable.add(self.last)
        return self.read(position)

    def read(self, position: StreamPosition) -> tuple[Envelope | None, StreamPosition]:
        readable = position.offset not in self.unreadable
        return Envelope(MessageType.PUB, channel=CHANNEL) if readable else None, position

    def since(self, offset: int) -> list[tuple[Envelope | None, StreamPosition]]:
        """As a batched direct get answers: without the true predecessors."""
        return [self.read(StreamPosition(kept, 0, "")) for kept in self.kept if kept > offset]


class ChannelMachine(RuleBasedStateMachine):
    """Everything that can happen to a channel, in any order; the listener is a client that joined when it opened."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = ModelStream("e1", 4)
        self.on_the_way: list[tuple[Envelope | None, StreamPosition]] = []
        self.position = 0
        """The listener has everything up to here, or was told that it is gone."""
        self.previous = 0
        self.bus_is_down = False
        self.lives = 1
        self.ever: dict[str, list[int]] = {}
        """Of each life of the stream: as in ModelStream."""

    @initialize(length=st.integers(1, 6), limit=st.integers(1, 6), before=st.lists(st.booleans(), max_size=8))
    def open(self, length: int, limit: int, before: Sequence[bool]) -> None:
        self._begin("e1", length)
        self.channel = DurableChannel(CHANNEL, Namespace(durable=True), limit)
        self.limit = limit
        for readable in before[: len(before) // 2]:
            self.stream.publish(readable=readable)
        opened_at = self.stream.kept[-1] if self.stream.kept else self.stream.last
        for readable in before[len(before) // 2 :]:
            assert self.channel.receive(*self.stream.publish(readable=readable)) == []
        self.position = self.previous = opened_at
        self.take(self.channel.open(Epoch("e1"), opened_at))

    # --- the world ----------------------------------------------------------------------------------------------

    @rule(readable=st.integers(0, 5).map(bool), heard=st.booleans(), twice=st.integers(0, 5).map(lambda n: n == 0))
    def publish(self, readable: bool, heard: bool, twice: bool) -> None:
        message = self.stream.publish(readable=readable)
        if heard and not self.bus_is_down:
            self.on_the_way.append(message)
            if twice:
                self.on_the_way.append(self.stream.read(message[1]))

    @rule()
    def publish_elsewhere(self) -> None:
        self.stream.last += 1

    @rule(count=st.integers(1, 4))
    def expire(self, count: int) -> None:
        # A message lives longer than those ahead of it need to arrive, unless the bus is away.
        assume(
            self.bus_is_down
            or not self.stream.kept
            or self.stream.kept[min(count, len(self.stream.kept)) - 1] <= self.channel.last
        )
        self.stream.kept = self.stream.kept[count:]

    @precondition(lambda self: self.on_the_way)
    @rule(count=st.integers(1, 5))
    def arrive(self, count: int) -> None:
        for envelope, position in self.on_the_way[:count]:
            self.take(self.channel.receive(envelope, position))
        del self.on_the_way[:count]

    @rule()
    def lose_the_bus(self) -> None:
        self.bus_is_down = True

    @precondition(lambda self: self.bus_is_down)
    @rule()
    def the_bus_is_back(self) -> None:
        self.bus_is_down = False
        self.on_the_way.clear()
        self.channel.doubt(0.0)

    @precondition(lambda self: self.bus_is_down)
    @rule()
    def recreate_the_stream(self) -> None:
        self.lives += 1
        self._begin(f"e{self.lives}", self.stream.length)

    def _begin(self, epoch: str, length: int) -> None:
        self.stream = ModelStream(epoch, length)
        self.ever[epoch] = self.stream.ever

    # --- what a recovery does -------------------------------------------------------------------------------------

    @precondition(lambda self: self.channel.state is DurableState.RECOVERING and not self.bus_is_down)
    @rule(while_reading=st.lists(st.booleans(), max_size=3))
    def recover(self, while_reading: Sequence[bool]) -> None:
        if self.stream.epoch != self.channel.epoch:
            self.on_the_way.clear()
            self.take(self.channel.restart(self.stream.epoch))
        found = self.stream.since(self.channel.last)
        lost = [offset for offset in self.stream.ever if offset > self.channel.last and offset not in self.stream.kept]
        first = found[0][1].offset if found else self.stream.last + 1
        read_until = self.stream.last
        for heard in while_reading:  # arrives after the stream has answered, before the log is told
            message = self.stream.publish(readable=True)
            if heard:
                self.take(self.channel.receive(*message))
        self.take(self.channel.recover(found, first - 1 if lost else 0, read_until))

    @precondition(
        lambda self: self.channel.state is DurableState.STEADY and self.channel.epoch.name == self.stream.epoch
    )
    @rule(back=st.integers(0, 8))
    def look_back(self, back: int) -> None:
        floor = max(0, self.channel.log.floor - back)
        kept_since = self.stream.kept[0] - 1 if self.stream.kept else self.stream.last
        assume(floor >= kept_since)
        self.channel.log.extend_back(self.stream.since(floor), floor)

    # --- the laws -----------------------------------------------------------------------------------------------

    def take(self, envelopes: Sequence[Envelope]) -> None:
        """The listener: a message follows on the one before, and nothing is between them that was not told."""
        for envelope in envelopes:
            if envelope.type == MessageType.GAP:
                self.take_gap(envelope)
                continue
            assert envelope.offset is not None
            assert envelope.offset > self.position
            assert envelope.previous == self.previous
            ever = self.ever[self.channel.epoch.name]  # what is on its way may be of the life before
            assert not [offset for offset in ever if self.position < offset < envelope.offset]
            self.position = self.previous = envelope.offset

    def take_gap(self, gap: Envelope) -> None:
        """It begins after the last message (or unreadable ones behind it), and what it covers is really gone."""
        if gap.data["reason"] == GapReason.EPOCH:
            assert gap.epoch == self.stream.epoch.name
            self.position = self.previous = 0
            return
        assert self.position < gap.data["from"] <= gap.data["to"] <= self.stream.last
        assert not [offset for offset in self.stream.ever if self.position < offset < gap.data["from"]]
        covered = range(gap.data["from"], gap.data["to"] + 1)
        assert any(offset in covered for offset in (*self.stream.ever, *self.stream.unreadable))
        assert not any(offset in covered for offset in self.stream.kept)
        self.position = self.previous = gap.data["to"]

    @invariant()
    def since_is_exact(self) -> None:
        if not hasattr(self, "channel") or self.channel.epoch != self.stream.epoch:
            return
        for offset in range(self.stream.last + 2):
            part = self.channel.log.after(offset, sys.maxsize)
            if offset < self.channel.log.floor:
                assert part is None
                continue
            assert part is not None
            expected = [told for told in self.stream.ever if offset < told <= self.channel.last]
            assert [message.offset for message in part.messages] == expected
            for earlier, later in itertools.pairwise(part.messages):
                assert later.previous == earlier.offset

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        if hasattr(self, "channel"):
            assert len(self.channel.log.all()) <= self.limit

    def teardown(self) -> None:
        """In the end the listener has everything, or was told: nothing stays behind once the bus is quiet."""
        if self.bus_is_down:
            self.the_bus_is_back()
        if self.on_the_way:
            self.arrive(len(self.on_the_way))
        self.channel.doubt(0.0)
        for _ in range(3):
            if self.channel.state is DurableState.RECOVERING:
                self.recover([])
        assert self.channel.state is DurableState.STEADY
        assert not [offset for offset in self.stream.ever if offset > self.position]


TestTheChannel = ChannelMachine.TestCase
