"""What `fanline run` does: a command is a task from its start to its end, whatever becomes of Fanline."""

import logging
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import PurePath
from typing import NamedTuple, TextIO

import trio

from fanline.base.task_socket import SOCKET_VARIABLE, TASK_VARIABLE
from fanline.cli.run.child_reports import ChildReports
from fanline.cli.run.command_process import CommandProcess, PassThrough, shell_code, start_command
from fanline.cli.run.job import Job, ViewerRights
from fanline.cli.run.progress_lines import Reader
from fanline.cli.run.socket_server import ListeningSocket
from fanline.cli.run.terminal.our_terminal import OurTerminal
from fanline.cli.terminal import complain, line_end, note
from fanline.errors import FanlineError
from fanline.local import NoServer
from fanline.nats.settings import find_options
from fanline.producer.calls import TaskCancelled
from fanline.producer.running_task import AsyncTask, StreamName
from fanline.producer.task import Task
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.text import HarmlessFormatter

NOT_EXECUTABLE = 126  # the exit codes of shells
NOT_FOUND = 127
LINGER_SECONDS = 5.0
LINGER_WITHOUT_SERVER = 1.0
"""A server that starts while the command runs is used; it is pointless to wait long for one that never starts."""
ENDING = (signal.SIGINT, signal.SIGTERM)  # sent to make the command end
FORWARDED = (*ENDING, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class RunOptions(NamedTuple):
    """What to run, and how to report it."""

    argv: list[str]
    id: str
    title: str
    heartbeat: float
    """Seconds."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    nats: NatsOptions | None
    rights: ViewerRights
    tty: bool
    """Whether it has a terminal of its own."""
    read_progress: Reader
    environ: dict[str, str]
    """What it is told besides."""


class CommandFailed(FanlineError):  # noqa: N818  # reads as what happened
    """The command did not succeed. str() is what viewers read, `code` is our exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class CommandCancelled(TaskCancelled):
    """The command ended because it was stopped; `code` is our exit code."""

    def __init__(self, code: int, by: str | None = None) -> None:
        super().__init__(by)
        self.code = code


async def execute(options: RunOptions) -> int:
    """Run the command to its end. Returns our exit code."""
    here = _find_nats(options)
    _print_warnings(logging.WARNING if here else logging.ERROR)
    if here:
        note(f"running as task:{options.id}; {options.rights.summary}; watch it with: fanline tail task:{options.id}")
    task = Task(
        options.id,
        title=options.title,
        kind="command",
        heartbeat=options.heartbeat,
        nats=options.nats,
        linger=LINGER_SECONDS if here else LINGER_WITHOUT_SERVER,
        takes_calls=True,
    )
    try:
        async with task as producer:
            await _perform(options, producer)
    except (CommandFailed, CommandCancelled) as ending:
        return ending.code
    return 0


def _find_nats(options: RunOptions) -> bool:
    """Whether it is known where to report; without that the command runs nevertheless."""
    try:
        find_options(options.nats)
    except NoServer as error:
        note(f"warning: {error}; the command runs without viewers")
        return False
    return True


async def _perform(options: RunOptions, task: AsyncTask) -> None:
    """Run the command. Raises CommandFailed or CommandCancelled unless it succeeds."""
    listening = _listen()
    try:
        await _perform_served(options, task, listening)
    finally:
        if listening is not None:
            listening.close()


async def _perform_served(options: RunOptions, task: AsyncTask, listening: ListeningSocket | None) -> None:
    received: set[int] = set()

    async def forward() -> None:
        async for number in signals:
            if number != signal.SIGWINCH:
                received.add(number)
                command.end(number)
            elif command.terminal is not None:
                command.terminal.resize()

    # The command inherits the signals that we ignore, as under nohup.
    caught = [number for number in (*FORWARDED, signal.SIGWINCH) if signal.getsignal(number) is not signal.SIG_IGN]
    reports = ChildReports(task)
    with trio.open_signal_receiver(*caught) as signals:
        command = await _start(options, listening)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # Ctrl-Z and `bg` must not stop us, and the command with us
        job = Job(command, task, options.grace, options.rights, reports, options.read_progress)
        try:
            with OurTerminal() if options.tty else nullcontext() as ours:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(forward)
                    status = await _run_heard(job, listening, reports, ours)
                    nursery.cancel_scope.cancel()
        except BaseException:
            command.signal(signal.SIGKILL)  # whatever happened to us, nothing is left running
            raise
    code = shell_code(status)
    if not reports.has_result:
        task.result({"exit_code": code})
    if job.stopped or (status and (command.interrupted or not received.isdisjoint(ENDING))):
        raise CommandCancelled(code, job.stopped_by)
    if status:
        raise CommandFailed(code, _describe(status))


async def _run_heard(
    job: Job, listening: ListeningSocket | None, reports: ChildReports, ours: OurTerminal | None
) -> int:
    """Run the command, and carry out what it reports by itself."""
    stdout = PassThrough(sys.stdout) if ours is None else PassThrough(sys.stdout, ours.modes.feed)
    outputs: Mapping[StreamName, PassThrough] = {"stdout": stdout, "stderr": PassThrough(sys.stderr)}
    if listening is None:
        return await job.run(outputs, ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listening.serve, reports)
        status = await job.run(outputs, ours)
        await listening.finish()
        nursery.cancel_scope.cancel()
    return status


def _listen() -> ListeningSocket | None:
    """The socket on which the command reports. It runs without one, too."""
    try:
        return ListeningSocket()
    except OSError as error:
        note(f"warning: the command cannot report by itself, for want of a socket: {error.strerror or error}")
        return None


class _Notes(logging.StreamHandler[TextIO]):
    """The log records on stderr, one below the other, whatever our terminal is doing."""

    def format(self, record: logging.LogRecord) -> str:
        self.terminator = line_end()
        return super().format(record).replace("\n", self.terminator)


def _print_warnings(level: int) -> None:
    """Print the SDK's log records on stderr, in the form of all our messages."""
    handler = _Notes()
    handler.setFormatter(HarmlessFormatter("fanline: warning: %(message)s"))
    logger = logging.getLogger("fanline")
    logger.addHandler(handler)
    logger.setLevel(level)


async def _start(options: RunOptions, listening: ListeningSocket | None) -> CommandProcess:
    argv = options.argv
    environ = {**options.environ, TASK_VARIABLE: options.id}
    if listening is not None:
        environ[SOCKET_VARIABLE] = listening.path
    try:
        return await start_command(argv, environ, tty=options.tty)
    except OSError as error:
        why = error.strerror or error
        complain(f"cannot run {argv[0]}: {why}")
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise CommandFailed(code, f"cannot run {program_name(argv)}: {why}") from None


def _describe(status: int) -> str:
    if status > 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def program_name(argv: list[str]) -> str:
    """All that viewers learn of the command line unless a title is given: arguments and paths may hold secrets."""
    return PurePath(argv[0]).name or "command"
