"""The cursor: one subscription's place in one channel, and so which message may be handed to it next. Pure; no I/O."""

from copy import copy
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

import trio

from fanline.client.message import Gap, Message, Position
from fanline.errors import FanlineError
from fanline.protocol.tasks.events import TaskEvent


class Wish(NamedTuple):
    """From where on a subscription wants a channel; by default only what comes."""

    position: Position | None = None
    """After this place."""
    data: dict[str, Any] | None = None
    """The data of a `sub`: {"last": N}, {"start": True}, or {"snapshot": True, "lines": N} of a task."""

    @property
    def snapshot(self) -> bool:
        """It begins with a snapshot of the task, and gets another one behind each gap."""
        return self.data is not None and "snapshot" in self.data


class Receiver(Protocol):
    """Where a cursor's messages go: a subscription."""

    @property
    def full(self) -> bool: ...

    def put(self, item: Message | Gap) -> None: ...

    def place(self, channel: str, position: Position) -> None: ...

    def fail(self, error: FanlineError) -> None: ...


def is_snapshot(message: Message) -> bool:
    """Whether a message is the server's word on a task. One that somebody published under that name follows on another
    message of the channel; the server's does not.
    """
    return message.event == TaskEvent.SNAPSHOT and message.previous is None


class Verdict(Enum):
    TAKEN = auto()
    REPEATED = auto()
    HOLE = auto()  # it follows on something that has not come


class Cursor:
    """`last` is the offset up to which nothing is missing; None on an ephemeral channel, and before the first message
    of a history that begins anywhere.
    """

    def __init__(self, receiver: Receiver, channel: str, wish: Wish) -> None:
        self.receiver = receiver
        self.channel = channel
        self.wish = wish
        self.asked = False
        """A `sub` with this wish is under way or answered."""
        self.answered = trio.Event()
        """The first answer is there, good or bad."""
        self.error: FanlineError | None = None
        """That answer, where it was a refusal."""
        self.recovered = True
        self.last: int | None = None
        self.epoch: str | None = None
        self.torn = False
        """A gap was handed out, and no snapshot since."""

    @property
    def placed(self) -> bool:
        """Whether it can go on from where it is, so that its wish need not be asked again."""
        return self.answered.is_set() and (self.last is not None or self.epoch is None)

    def reconnect(self) -> None:
        """Nothing of what was asked before will come: neither what was wished for nor the snapshot behind a gap."""
        if self.torn:
            self.last = None
        self.asked = self.placed

    async def wait_answered(self) -> None:
        """Wait for the first answer to the wish; raises it if it is a refusal."""
        await self.answered.wait()
        if self.error is not None:
            raise copy(self.error)

    def begin(self, last: int | None, epoch: str | None, *, recovered: bool = True) -> None:
        """The server has answered the wish."""
        self.last, self.epoch = last, epoch
        if last is not None:
            self.receiver.place(self.channel, Position(last, epoch))
        if not self.answered.is_set():
            self.recovered = recovered
            self.answered.set()

    def refuse(self, error: FanlineError) -> None:
        """It is over: for who enters the subscription as an error, for who iterates as the end."""
        if self.answered.is_set():
            self.receiver.fail(error)
        else:
            self.error = error
            self.answered.set()

    def renew(self, epoch: str) -> None:
        """The channel began anew: all of its new life is still to come."""
        self.last, self.epoch = 0, epoch
        self._tell(Gap(self.channel, "epoch", last=0, epoch=epoch))

    def take(self, item: Message | Gap, previous: int | None, offset: int) -> Verdict:
        """Hand out what follows on what was handed out before, and nothing else."""
        if isinstance(item, Message) and is_snapshot(item):
            return self._take_snapshot(item, offset)
        if self.last is None and self.torn:
            return Verdict.REPEATED  # the snapshot that was asked for comes behind it, and tells of it
        if self.last is not None:
            if offset <= self.last:
                return Verdict.REPEATED
            if previous is not None and previous > self.last:
                return Verdict.HOLE
        self.last = offset
        if isinstance(item, Gap):
            self._tell(item)
        else:
            self.receiver.put(item)
        return Verdict.TAKEN

    def _take_snapshot(self, item: Message, offset: int) -> Verdict:
        """The server sends it for one of us, to begin with, or behind a gap; to all others it says nothing new, and it
        must not take them past what they have not got yet.
        """
        due = self.last is None or (self.torn and offset >= self.last)
        if not self.wish.snapshot or not due:
            return Verdict.REPEATED
        self.last, self.torn = offset, False
        self.receiver.put(item)
        return Verdict.TAKEN

    def give_up_until(self, offset: int) -> None:
        """Asked twice, the server brought nothing for what is missing up to `offset`: say so and go on, or begin anew
        where that is a matter of a snapshot.
        """
        assert self.last is not None
        self._tell(Gap(self.channel, "unexplained", self.last + 1, offset, self.epoch))
        if self.wish.snapshot:
            self.last, self.asked = None, False
        else:
            self.last = offset

    def _tell(self, gap: Gap) -> None:
        self.torn = self.wish.snapshot
        self.receiver.put(gap)
