"""How `fanline tail` shows a task: a live display on a terminal, plain lines elsewhere, JSON for scripts."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fanline.cli.messages.subscribe import envelope_line
from fanline.cli.terminal import note, put_json, put_lines, styled
from fanline.cli.watch.task_text import activity, facts, question, sentences, status
from fanline.client.task_events import OutputLine, TaskUpdate
from fanline.client.task_view import TaskView
from fanline.protocol.tasks.events import Stream, TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState

_BAR_WIDTH = 30
_STEP = 10  # percent between two lines about progress where there is no live display
STYLES = {
    TaskState.COMPLETED: "bold green",
    TaskState.FAILED: "bold red",
    TaskState.TIMED_OUT: "bold red",
    TaskState.CANCELLED: "bold yellow",
    TaskState.CANCELLING: "yellow",
    TaskState.STALLED: "yellow",
    TaskState.RETRYING: "yellow",
    TaskState.WAITING_INPUT: "bold magenta",
}


class Screen(Protocol):
    """Shows one task inside its `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def begin(self, task: TaskView, joined: TaskUpdate) -> None:
        """Show the task as it is on joining."""

    def show(self, update: TaskUpdate) -> None:
        """Show an update."""

    def tell(self, sentence: str) -> None:
        """Show a line about something other than the task itself."""

    def refresh(self) -> None:
        """Called ten times a second."""


class _BaseScreen:
    """The default for each method: nothing to open, nothing to refresh, notes on stderr."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def tell(self, sentence: str) -> None:
        note(sentence)

    def refresh(self) -> None:
        pass


class JsonScreen(_BaseScreen):
    """One envelope per line: the snapshot, followed by the events as they were delivered."""

    def begin(self, task: TaskView, joined: TaskUpdate) -> None:
        if joined.snapshot.state is TaskState.UNKNOWN:
            for sentence in greeting(task):
                self.tell(sentence)
        self.show(joined)

    def show(self, update: TaskUpdate) -> None:
        if update.gap is not None:
            put_json(envelope_line(update.gap))
        put_json(envelope_line(update.message))


class LineScreen(_BaseScreen):
    """Log lines on stdout, everything else on stderr."""

    def __init__(self) -> None:
        self._task = ""
        self._stage: str | None = None
        self._step = 0

    def begin(self, task: TaskView, joined: TaskUpdate) -> None:
        self._task = task.channel
        for sentence in greeting(task):
            self.tell(sentence)
        self._print(task.output)
        self._has_moved(joined.snapshot)

    def show(self, update: TaskUpdate) -> None:
        for sentence in sentences(self._task, update):
            self.tell(sentence)
        if update.kind is TaskEvent.PROGRESS and self._has_moved(update.snapshot):
            parts = [*facts(update.snapshot, unix_ms()), activity(update.snapshot)]
            self.tell(", ".join(part for part in parts if part))
        self._print(update.lines)

    def _has_moved(self, snapshot: Snapshot) -> bool:
        """Whether the progress is worth a line: another stage, or another ten percent, since the last call."""
        now = (snapshot.stage, int((snapshot.percent or 0) // _STEP))
        moved = now != (self._stage, self._step)
        self._stage, self._step = now
        return moved

    def _print(self, lines: Iterable[OutputLine]) -> None:
        texts = [line.text for line in lines if not line.superseded]
        if texts:
            put_lines(texts)


class LiveScreen(_BaseScreen):
    """Log lines and notes scroll above a live display of the task, printed once per frame: there may be very many."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._task: TaskView | None = None
        self._waiting: list[Text] = []

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flush()
        self._live.__exit__(kind, error, traceback)

    def begin(self, task: TaskView, joined: TaskUpdate) -> None:
        self._task = task
        self._waiting += map(_line, task.output)
        if task.snapshot.state is TaskState.UNKNOWN or task.snapshot.ended_for_good:
            for sentence in greeting(task):
                self.tell(sentence)
        self.refresh()

    def show(self, update: TaskUpdate) -> None:
        assert self._task is not None
        for sentence in sentences(self._task.channel, update):
            self.tell(sentence)
        self._waiting += map(_line, update.lines)

    def tell(self, sentence: str) -> None:
        self._waiting.append(styled(f"- {sentence}", "cyan"))

    def refresh(self) -> None:
        self._flush()
        if self._task is not None:
            self._live.update(_display(self._task), refresh=True)

    def _flush(self) -> None:
        if self._waiting:
            lines, self._waiting = self._waiting, []
            self._console.print(Group(*lines))


def greeting(task: TaskView) -> list[str]:
    """What is shown first: the task and its state."""
    snapshot, name = task.snapshot, task.channel
    if snapshot.state is TaskState.UNKNOWN:
        return [f"nothing was ever heard of {name}: waiting for it (`fanline tasks` shows what runs)"]
    title = f" ({snapshot.title})" if snapshot.title else ""
    attempt = f", attempt {snapshot.attempt}" if snapshot.attempt > 1 else ""
    figures = "".join(f", {part}" for part in [*facts(snapshot, unix_ms()), activity(snapshot)] if part)
    asks = question(name, snapshot.ask) if snapshot.ask is not None and snapshot.ask.open else []
    return [f"{name}{title} is {status(snapshot)}{attempt}{figures}", *asks]


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _line(line: OutputLine) -> Text:
    style = "dim strike" if line.superseded else "red" if line.stream is Stream.STDERR else ""
    return styled(line.text, style)


def _display(task: TaskView) -> RenderableType:
    snapshot = task.snapshot
    rows: list[RenderableType] = [_head(task)]
    if snapshot.state is not TaskState.UNKNOWN:
        bar = ProgressBar(100, snapshot.percent or 0, width=_BAR_WIDTH, pulse=snapshot.percent is None)
        line = Table.grid(padding=(0, 2))
        line.add_row(bar, styled("  ".join(facts(snapshot, unix_ms())), one_line=True))
        rows += [line, *(styled(text, one_line=True) for text in [activity(snapshot)] if text)]
    if snapshot.ask is not None and snapshot.ask.open:
        rows += [styled(text, "magenta", one_line=True) for text in question(task.channel, snapshot.ask)]
    return Group(*rows)


def _head(task: TaskView) -> Text:
    snapshot = task.snapshot
    head = styled(task.channel, "bold", one_line=True)
    if snapshot.title:
        head.append(styled(f"  {snapshot.title}"))
    head.append(styled(f"  {status(snapshot)}", STYLES.get(snapshot.state, "blue")))
    if snapshot.attempt > 1:
        head.append(f"  attempt {snapshot.attempt}")
    return head
