"""Runs one command as a task: reports its output and progress, and carries out the calls of viewers."""

import re
import signal
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import msgspec
import trio

from fanline.cli.run.child_reports import ChildReports
from fanline.cli.run.command_process import CommandProcess, PassThrough, StdinClosed
from fanline.cli.run.line_splitter import LineSplitter
from fanline.cli.run.progress_lines import Progress, Reader, last_progress
from fanline.cli.run.terminal.our_terminal import OurTerminal
from fanline.cli.terminal import note
from fanline.producer.calls import Call
from fanline.producer.running_task import AsyncTask, StreamName

_STOPPING = ("cancel", "pause", "resume")
_ANSWERS = ("approve", "reject", "input")
_KEYS = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
"""Characters by which a line that is typed on a terminal would be more than a line: Ctrl-C, Ctrl-D, Escape."""
PAUSED_SECONDS = 0.2
"""In which viewers hear of a pause before our own threads stop, too."""
TYPE_SECONDS = 2.0  # how long a viewer's input waits behind other input


class ViewerRights(NamedTuple):
    """What viewers may do besides watching."""

    type: bool
    """Write lines to the command's stdin: viewers who may do that may do whatever the command does with them."""
    stop: bool
    """Cancel, pause and resume it."""

    @property
    def summary(self) -> str:
        """For the person who starts the command."""
        return f"viewers {'can' if self.stop else 'cannot'} stop it, and {'can' if self.type else 'cannot'} type to it"

    @property
    def title_suffix(self) -> str:
        """What differs from the default, for viewers."""
        unusual = ["can type"] * self.type + ["cannot stop it"] * (not self.stop)
        return f" (viewers {' and '.join(unusual)})" if unusual else ""

    def refusal(self, verb: str) -> str | None:
        """Why a verb is refused; None if it is not."""
        if verb == "input" and not self.type:
            return "viewers cannot type to this command; that takes `fanline run --input`"
        if verb in _STOPPING and not self.stop:
            return "viewers cannot stop this command: it was started with `fanline run --no-cancel`"
        return None


class Job:
    """One command, from its start to its end."""

    def __init__(
        self,
        command: CommandProcess,
        task: AsyncTask,
        grace: float,
        rights: ViewerRights,
        reports: ChildReports,
        read_progress: Reader,
    ) -> None:
        self._command = command
        self._task = task
        self._grace = grace
        self._rights = rights
        self._reports = reports
        self._read_progress = read_progress
        self._calls = task.calls()
        self._progress: Progress | None = None
        self._nursery: trio.Nursery
        self._unheard = False  # a viewer has answered a question that we do not know
        self.stopped = False
        """A viewer has stopped the command."""
        self.stopped_by: str | None = None
        """Who stopped it."""

    async def run(self, outputs: Mapping[StreamName, PassThrough], ours: OurTerminal | None) -> int:
        """Wait until the command has ended and its output is reported. Returns its exit code, or -n after signal n."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._command.feed, partial(self._suspend, ours))
            self._nursery.start_soon(self._serve_calls)
            async with trio.open_nursery() as relays:
                for name, source in self._command.outputs.items():
                    relays.start_soon(self._relay, source, outputs[name], name)
            code = await self._command.wait()
            self._nursery.cancel_scope.cancel()
        return code

    async def _suspend(self, ours: OurTerminal | None) -> None:
        """Stop the command and, with it, our own job, until that is continued."""
        self._command.signal(signal.SIGSTOP)
        self._task.pause()
        await trio.sleep(PAUSED_SECONDS)
        if ours is not None:
            ours.suspend()
        if self._command.terminal is not None:
            self._command.terminal.resize()
        for number in (signal.SIGCONT, signal.SIGWINCH):  # so that it draws what was on the screen
            self._command.signal(number)
        self._task.resume()

    async def _relay(self, source: trio.lowlevel.FdStream, output: PassThrough, stream: StreamName) -> None:
        splitter = LineSplitter()
        while (data := await self._command.receive(source)) is not None:
            self._report(splitter.feed(data) if data else splitter.prompt(), splitter, stream)
            await output.write(data)
        self._report(splitter.end(), splitter, stream)

    def _report(self, lines: list[str], splitter: LineSplitter, stream: StreamName) -> None:
        if lines:
            self._task.log("\n".join(lines) + "\n", stream=stream)
        if self._reports.counts_progress:
            return
        seen = [*zip(lines, splitter.were_redrawn, strict=True), (splitter.shown, splitter.redrawn)]
        progress = last_progress(seen, self._read_progress)
        if progress is not None and progress != self._progress:
            self._progress = progress
            self._task.progress(progress.percent, done=progress.done, total=progress.total)

    async def _serve_calls(self) -> None:
        async for call in self._calls:
            self._nursery.start_soon(self._serve, call)  # a call that waits must not delay a cancel

    async def _serve(self, call: Call) -> None:
        if call.verb in _ANSWERS and call.ask is not None:
            return await self._pass_answer(call)
        if (refusal := self._rights.refusal(call.verb)) is not None:
            return await call.refuse(refusal)
        match call.verb:
            case "cancel":
                self._stop(call.by)
            case "input":
                return await self._type(call)
            case "pause":
                self._command.signal(signal.SIGSTOP)
                self._task.pause()
            case "resume":
                self._command.signal(signal.SIGCONT)
                self._task.resume()
            case verb:
                return await call.refuse(f"a command supports cancel, input, pause and resume, not {verb}")
        return await call.answer()

    def _stop(self, by: str | None) -> None:
        if not self.stopped:
            self.stopped, self.stopped_by = True, by
            note(f"stopped by {by or 'a viewer'}: SIGTERM now, SIGKILL after {self._grace:g} s")
            self._nursery.start_soon(self._command.stop, self._grace)

    async def _pass_answer(self, call: Call) -> None:
        """The answer to a question that the command has asked by itself, past us: to its stdin if viewers may type.

        Otherwise whoever has asked takes it: the command hears the same call, if it listens, and it alone replies.
        """
        if self._rights.type:
            await self._type(call)
        elif not self._unheard:
            self._unheard = True
            note(
                f"a viewer has answered question {call.ask!r}, which this command did not ask with `fanline ask`: "
                "the answer waits until the program that asked takes it from NATS (or give --input)"
            )

    async def _type(self, call: Call) -> None:
        try:
            await self._command.type(_line_of(call, terminal=self._command.terminal is not None), TYPE_SECONDS)
        except StdinClosed as error:
            await call.refuse(str(error))
        else:
            await call.answer()


def _line_of(call: Call, *, terminal: bool) -> bytes:
    """A viewer's input as a line for a program: the text, or anything else as JSON, and a newline."""
    value = call.data.get("value") if isinstance(call.data, dict) else call.data
    if call.ask is not None and (value is None or isinstance(value, bool)):
        value = "no" if call.verb == "reject" or value is False else "yes"
    text = "" if value is None else value
    line = text if isinstance(text, str) else msgspec.json.encode(text).decode()
    return (_KEYS.sub("", line) if terminal else line).encode(errors="replace") + b"\n"
