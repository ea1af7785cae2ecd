"""A durable channel in one worker: its log, whether something is missing, and the fold of its messages. No I/O.

Messages are handed out as an exact sequence, or the sequence is interrupted by a `gap` that says what is gone. A
message that does not follow on the last one opens a hole: it is held, with all later ones, until the stream has been
asked (recovery.py). On a task channel a `gap` is followed by a snapshot, so that viewers that cannot fold everything
are correct again.

A message's `Nats-Last-Sequence` proves a hole when it is newer than `last`. When it is 0 or older it proves nothing,
for the predecessor may have expired; but this worker has listened without a break, so `last` is the true predecessor.
"""

from collections.abc import Sequence
from typing import Protocol

import trio

from fanline.engine.bus.stored import Epoch, StreamPosition, StreamState
from fanline.engine.channels.durable.held import HeldMessages
from fanline.engine.channels.durable.life import DURABLE, DurableEvent, DurableState
from fanline.engine.channels.durable.log import ChannelLog, Readable
from fanline.engine.channels.durable.log_budget import LogBudget
from fanline.engine.clock import unix_ms
from fanline.engine.namespaces import Namespace
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.commands import DEFAULT_LINES
from fanline.protocol.messages.notices import GapData, GapReason

_GAP = MessageType.GAP  # checked for every message
_CLOCK_SKEW = 1.0  # seconds by which the NATS server's clock may be behind ours


class Fold(Protocol):
    """What is known of a channel besides its messages; TaskFold (engine/tasks/fold.py) is the one of task channels."""

    offset: int
    """Everything up to here is folded in."""

    def take(self, envelope: Envelope, offset: int) -> Envelope | None:
        """Fold the next message; what viewers get of it, None for nothing."""
        ...

    def snapshot_message(self, lines: int, offset: int) -> Envelope:
        """What is known up to `offset`, with the newest `lines` lines of output."""
        ...

    def restart(self, *, forget: bool) -> None:
        """Offsets begin again. `forget`: the stream is an older copy, in which what is known may never have been."""
        ...


class DurableChannel:
    """One durable channel. `log_limit`: messages kept for clients that come back; `budget` bounds their bytes."""

    __slots__ = (
        "_held",
        "_marked",
        "_said",
        "_steady",
        "asking",
        "bottom",
        "epoch",
        "fold",
        "lives",
        "log",
        "name",
        "namespace",
        "sound_until",
        "state",
    )

    def __init__(
        self, name: str, namespace: Namespace, log_limit: int, fold: Fold | None = None, budget: LogBudget | None = None
    ) -> None:
        self.name = name
        self.namespace = namespace
        budget = budget or LogBudget()
        self.log = ChannelLog(log_limit, budget)
        self.fold = fold
        self.state = DurableState.OPENING
        self.epoch = Epoch("")
        self.lives = 0
        """How often its offsets have begun again; another epoch may also just go on where the last one ended."""
        self.bottom: int | None = None
        """Set when all that the stream holds was read: clients that have less than this may have missed some of it."""
        self.sound_until = 0.0
        """While something may be missing: the Unix time up to which nothing was."""
        self.asking = trio.Lock()
        """Held by the task that asks the stream about this channel; others wait, and find the log extended."""
        self._held = HeldMessages(budget)  # while something may be missing
        self._said = ""  # name of the epoch that the clients who listen know of
        self._marked: Envelope | None = None  # the message that has told them
        self._steady = trio.Event()

    @property
    def last(self) -> int:
        """Offset up to which everything was handed out, or is known to be gone."""
        return self.log.last

    @property
    def heard(self) -> int:
        """Offset of the newest message that is held; 0 for none."""
        return self._held.newest

    # --- messages ------------------------------------------------------------------------------------------------

    def receive(self, envelope: Envelope | None, position: StreamPosition) -> list[Envelope]:
        """Take the next message of the bus; what can be handed out now. The state says whether a hole was found.

        `envelope` is None for a message that could not be read: it has a position, and goes to no subscriber.
        """
        if self.state is not DurableState.STEADY:
            return self._hold(envelope, position)
        if position.offset <= self.last or position.previous > self.last:
            # Older than what we have: a repeat, or the stream was recreated. It has to be asked either way.
            self._move(DurableEvent.DOUBTED)
            return self._hold(envelope, position)
        return self._append(envelope, position.offset)

    def open(self, epoch: Epoch, offset: int) -> list[Envelope]:
        """The stream has said where the channel stands; messages that arrived since can be handed out."""
        self.epoch, self._said = epoch, epoch.name
        self._forget(offset)
        self._move(DurableEvent.OPENED)
        return self._release()

    def doubt(self, sound_until: float) -> None:
        """Messages after this Unix time may be missing: hold what comes. Of several doubts the oldest stands."""
        self.sound_until = min(self.sound_until or sound_until, sound_until)
        self._move(DurableEvent.DOUBTED)

    def advance(self, found: Sequence[Readable], lost_until: int = 0, read_until: int = 0) -> list[Envelope]:
        """Close a part of a hole with what the stream holds after `last`; what can be handed out, in order.

        `lost_until`: the newest offset that may be gone for good; 0 for none. `read_until`: `found` is all that the
        stream holds up to here, so a message that another one follows on and that is not in it is gone for good.
        """
        owed = self.folded > self.last
        return self._with_owed_snapshot(self._fill(found, lost_until, read_until), owed=owed)

    def recover(self, found: Sequence[Readable], lost_until: int = 0, read_until: int = 0) -> list[Envelope]:
        """The same with the last part: the hole is closed, and what was held can be handed out, too."""
        owed = self.folded > self.last
        ready = self._fill(found, lost_until, read_until)
        ready += self._lose(self.folded)  # the task record knows of what the stream no longer has
        self._move(DurableEvent.RECOVERED)
        return self._with_owed_snapshot(ready + self._release(), owed=owed)

    def meet(self, epoch: Epoch) -> list[Envelope] | None:
        """The stream has said its epoch. None if all that was handed out stands; otherwise the messages that say that
        it does not, and what the stream holds has still to be read.
        """
        if not epoch.covers(self.epoch.name, self.last):
            return self.restart(epoch)
        if self._marked is not None:  # from now on, a client that joins is sent it as a message of the past
            self._marked.epoch = None
            self._marked = None
        self.epoch = epoch
        return None

    def restart(self, epoch: Epoch) -> list[Envelope]:
        """The stream was recreated, or is an older copy: say so, and expect its first message; what it holds has still
        to be read.
        """
        if self.fold is not None:
            self.fold.restart(forget=epoch.went_back_from(self.epoch.name, self.last))
        self.epoch, self._said = epoch, epoch.name
        self.lives += 1
        self._held.take()  # messages since then are in the new stream
        self._forget(0)
        return self.with_snapshot([self.gap(0, 0, GapReason.EPOCH)])

    def give_up(self, until: int = 0) -> list[Envelope]:
        """We fail to hand out what comes after `last`: the gap that says so, up to here and to what is held, behind
        which it goes on. If nothing is known to be missing, a gap without offsets, and nothing else changes.
        """
        until = max(until, self.heard)
        self._held.take()
        if until <= self.last:
            return [self._gap(GapData(reason=GapReason.FAULT))]
        gap = self.gap(self.last + 1, until, GapReason.FAULT)
        self._forget(until)
        self._move(DurableEvent.RECOVERED)
        return self.with_snapshot([gap])

    @property
    def folded(self) -> int:
        """Offset up to which everything is in the fold; 0 without one. In the middle of a recovery it may be newer than
        `last`, if the fold was loaded from a task record: a snapshot would then say more than was handed out.
        """
        return 0 if self.fold is None else self.fold.offset

    # --- for clients ---------------------------------------------------------------------------------------------

    def gap(self, first: int, last: int, reason: GapReason) -> Envelope:
        """A `gap` for the offsets from `first` to `last`."""
        return self._gap(GapData(first=first, last=last, reason=reason))

    def _gap(self, data: GapData) -> Envelope:
        return Envelope(MessageType.GAP, channel=self.name, epoch=self.epoch.name, data=data.fields(), time=unix_ms())

    def snapshot(self, lines: int = DEFAULT_LINES) -> Envelope:
        """The task as of `last`, with the newest `lines` lines of its output."""
        assert self.fold is not None
        return self.fold.snapshot_message(lines, self.last)

    def with_snapshot(self, envelopes: list[Envelope]) -> list[Envelope]:
        """On a task channel a snapshot follows messages with a gap among them."""
        if self.fold is None or not any(envelope.type == MessageType.GAP for envelope in envelopes):
            return envelopes
        return [*envelopes, self.snapshot()]

    # --- recovery ------------------------------------------------------------------------------------------------

    def is_complete(self, stream: StreamState, found: int, now: float) -> bool:
        """Whether no message after `last` can have left the stream, of which `found` are still there.

        A stream drops the oldest messages first, for their age, for its size or for the number of messages in the
        channel; each has to be ruled out. `now` in Unix seconds.
        """
        if found >= self.namespace.history:
            return False
        if stream.first <= self.last + 1:
            return True
        young = now - self.sound_until < self.namespace.max_age - _CLOCK_SKEW
        roomy = self.namespace.max_bytes < 0 or stream.size < self.namespace.max_bytes // 2
        older_is_there = stream.first_time < self.sound_until - _CLOCK_SKEW
        return (young and roomy) or older_is_there

    async def wait_steady(self) -> None:
        """Wait until messages are handed out as they come; returns without a checkpoint if they are."""
        while self.state is not DurableState.STEADY:
            await self._steady.wait()

    def wake(self) -> None:
        """An attempt at recovery has ended: let those who wait look again."""
        if self.state is DurableState.STEADY:
            self.sound_until = 0.0
        self._steady.set()
        self._steady = trio.Event()

    def close(self) -> None:
        """No subscriber is left: give back the memory, and accept no more messages."""
        self._held.take()
        self.log.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _move(self, event: DurableEvent) -> None:
        self.state = DURABLE.get((self.state, event), self.state)

    def _hold(self, envelope: Envelope | None, position: StreamPosition) -> list[Envelope]:
        self._held.add(envelope, position)
        return []

    def _append(self, envelope: Envelope | None, offset: int) -> list[Envelope]:
        if envelope is not None and self.fold is not None:
            envelope = self.fold.take(envelope, offset)
        if envelope is None:
            self.log.skip(offset)
            return []
        self.log.append(envelope, offset)
        if envelope.type is _GAP:
            return self.with_snapshot([envelope])
        if self._said != self.epoch.name:  # those who listen have to know where this offset belongs
            envelope.epoch = self._said = self.epoch.name
            self._marked = envelope
        return [envelope]

    def _fill(self, found: Sequence[Readable], lost_until: int, read_until: int) -> list[Envelope]:
        known = {position.offset: (envelope, 0) for envelope, position in found}
        for envelope, position in self._held:
            if position.offset <= read_until:
                known[position.offset] = (envelope, position.previous)
        ready = self._lose(lost_until)
        for offset, (envelope, previous) in sorted(known.items()):
            if offset > self.last:
                ready += self._lose(previous)
                ready += self._append(envelope, offset)
        return ready

    def _with_owed_snapshot(self, envelopes: list[Envelope], *, owed: bool) -> list[Envelope]:
        """`with_snapshot`, but not before the channel has caught up with its fold. `owed`: it had not before."""
        if self.folded > self.last:
            return envelopes
        return [*envelopes, self.snapshot()] if owed else self.with_snapshot(envelopes)

    def _release(self) -> list[Envelope]:
        """Hand out what was held, as far as it follows on; another hole starts over."""
        held = sorted(self._held.take(), key=lambda readable: readable[1].offset)
        ready = []
        for envelope, position in held:
            if self.state is DurableState.STEADY and position.offset <= self.last:
                continue  # recovered already
            ready += self.receive(envelope, position)
        return ready

    def _lose(self, until: int) -> list[Envelope]:
        """What comes after `last`, up to here, is gone for good: the gap that says so."""
        if until <= self.last:
            return []
        gap = self.gap(self.last + 1, until, GapReason.EXPIRED)
        self._forget(until)
        return [gap]

    def _forget(self, offset: int) -> None:
        self.log.reset(offset)
        self.bottom = None
