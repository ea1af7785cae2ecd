"""What a viewer of a task gets: its output lines, and the updates that its iterator yields."""

from dataclasses import dataclass, field

from fanline.client.message import Gap, Message
from fanline.protocol.tasks.events import Stream, TaskData, TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line of a task's output, without its line end."""

    text: str
    stream: Stream
    number: int
    """The line's number within its attempt, from 0. After a jump, the lines in between were not kept."""
    attempt: int
    superseded: bool = False
    """A newer attempt has started since."""


@dataclass(frozen=True, slots=True)
class TaskUpdate:
    """One step of a task, as `async for update in task` yields it. Look at `kind`:

    PROGRESS         `snapshot` has percent, stage, rate, eta ...
    OUTPUT           `lines` are new
    ASKED            `snapshot.ask` is the question; ANSWERED and ASK_EXPIRED settle it
    COMPLETED, FAILED, CANCELLED, TIMED_OUT   the end of the attempt; `ended` is true
    SNAPSHOT         something was missed (`gap` says what), and `snapshot` is right again
    None             a message that says nothing about the task's state: one of the producer's own, in `message`

    For all other kinds look at `state_changed`, which is true for an update of any kind that changed the state.
    """

    kind: TaskEvent | None
    snapshot: Snapshot
    """The task after this update."""
    before: TaskState
    """The task's state before this update."""
    message: Message
    """The message as it was delivered: sender, time, offset, raw data."""
    data: TaskData = field(default_factory=TaskData)
    """The known keys of the message's data, checked."""
    lines: tuple[OutputLine, ...] = ()
    new_attempt: bool = False
    """It started another attempt: the lines so far are superseded."""
    gap: Gap | None = None

    @property
    def state_changed(self) -> bool:
        """Whether this step has brought the task into another state."""
        return self.snapshot.state is not self.before

    @property
    def ended(self) -> bool:
        """The task ended with this update."""
        return self.snapshot.ended_for_good and (self.state_changed or self.new_attempt)
