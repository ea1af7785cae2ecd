"""Runs one command as a task: reports its output and progress, and carries out the calls of viewers."""

import signal
from typing import Any, NamedTuple

import msgspec
import trio

from fanline.cli.run.command_process import CommandProcess, PassThrough, StdinClosed
from fanline.cli.run.line_splitter import LineSplitter
from fanline.cli.run.progress_lines import Progress, last_progress
from fanline.cli.terminal import note
from fanline.producer.calls import Call
from fanline.producer.running_task import AsyncTask, StreamName

_STOPPING = ("cancel", "pause", "resume")
TYPE_SECONDS = 2.0  # how long a viewer's input waits behind other input


class ViewerRights(NamedTuple):
    """What viewers may do besides watching."""

    type: bool
    """Write lines to the command's stdin: whoever may do that may do whatever the command does with them."""
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

    def __init__(self, command: CommandProcess, task: AsyncTask, grace: float, rights: ViewerRights) -> None:
        self._command = command
        self._task = task
        self._grace = grace
        self._rights = rights
        self._calls = task.calls()  # from the start, so that a cancel comes to us
        self._progress: Progress | None = None
        self._nursery: trio.Nursery
        self.stopped = False
        """A viewer has stopped the command."""
        self.stopped_by: str | None = None
        """Who stopped it."""

    async def run(self, stdout: PassThrough, stderr: PassThrough) -> int:
        """Wait until the command has ended and its output is reported. Returns its exit code, or -n after signal n."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._command.feed)
            self._nursery.start_soon(self._serve_calls)
            async with trio.open_nursery() as relays:
                relays.start_soon(self._relay, self._command.stdout, stdout, "stdout")
                relays.start_soon(self._relay, self._command.stderr, stderr, "stderr")
            code = await self._command.wait()
            self._nursery.cancel_scope.cancel()
        return code

    async def _relay(self, source: trio.lowlevel.FdStream, output: PassThrough, stream: StreamName) -> None:
        splitter = LineSplitter()
        while (data := await self._command.receive(source)) is not None:
            self._report(splitter.feed(data) if data else splitter.prompt(), splitter.shown, stream)
            await output.write(data)
        self._report(splitter.end(), "", stream)

    def _report(self, lines: list[str], shown: str, stream: StreamName) -> None:
        if lines:
            self._task.log("\n".join(lines) + "\n", stream=stream)
        progress = last_progress([*lines, shown])
        if progress is not None and progress != self._progress:
            self._progress = progress
            self._task.progress(progress.percent, done=progress.done, total=progress.total)

    async def _serve_calls(self) -> None:
        async for call in self._calls:
            self._nursery.start_soon(self._serve, call)  # a call that waits must not delay a cancel

    async def _serve(self, call: Call) -> None:
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

    async def _type(self, call: Call) -> None:
        try:
            await self._command.type(_line_of(call.data), TYPE_SECONDS)
        except StdinClosed as error:
            await call.refuse(str(error))
        else:
            await call.answer()


def _line_of(data: Any) -> bytes:
    """A viewer's input as a line for a program: the text, or anything else as JSON, and a newline."""
    value = data.get("value") if isinstance(data, dict) else data
    text = "" if value is None else value
    return (text.encode(errors="replace") if isinstance(text, str) else msgspec.json.encode(text)) + b"\n"
