"""`fanline run`: run any command as a task that viewers can watch and stop. The command never depends on Fanline."""

import logging
import signal
import sys
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple

import trio
import typer

from fanline.cli.nats_flags import (
    NatsCreds,
    NatsNkey,
    NatsTlsCa,
    NatsTlsCert,
    NatsTlsKey,
    NatsUrl,
    nats_from_flags,
)
from fanline.cli.options import task_id
from fanline.cli.run.command_process import CommandProcess, PassThrough, shell_code, start_command
from fanline.cli.run.job import Job, ViewerRights
from fanline.cli.runner import run
from fanline.cli.terminal import complain, note
from fanline.errors import FanlineError
from fanline.nats.settings import has_server
from fanline.producer.calls import TaskCancelled
from fanline.producer.checks import MAX_NAME, short
from fanline.producer.fresh_id import fresh_id
from fanline.producer.running_task import AsyncTask
from fanline.producer.task import Task
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.text import HarmlessFormatter

NOT_EXECUTABLE = 126  # the exit codes of shells
NOT_FOUND = 127
LINGER_SECONDS = 5.0
LINGER_WITHOUT_SERVER = 1.0
"""A server that starts while the command runs is used; there is no need to wait long for one that never did."""
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
    here = has_server(options.nats)
    _print_warnings(logging.WARNING if here else logging.ERROR)
    if here:
        note(f"running as task:{options.id}; {options.rights.summary}; watch it with: fanline tail task:{options.id}")
    else:
        note("warning: no running `fanline serve` found; the command runs without viewers")
    task = Task(
        options.id,
        title=options.title,
        kind="command",
        heartbeat=options.heartbeat,
        nats=options.nats,
        linger=LINGER_SECONDS if here else LINGER_WITHOUT_SERVER,
    )
    try:
        async with task as producer:
            await _perform(options, producer)
    except (CommandFailed, CommandCancelled) as ending:
        return ending.code
    return 0


async def _perform(options: RunOptions, task: AsyncTask) -> None:
    """Run the command. Raises CommandFailed or CommandCancelled unless it succeeds."""
    received: set[int] = set()

    async def forward() -> None:
        async for number in signals:
            received.add(number)
            command.end(number)

    # The command inherits the signals that we ignore, as under nohup.
    caught = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*caught) as signals:
        command = await _start(options.argv)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # Ctrl-Z and `bg` must not stop us, and the command with us
        job = Job(command, task, options.grace, options.rights)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forward)
                status = await job.run(PassThrough(sys.stdout), PassThrough(sys.stderr))
                nursery.cancel_scope.cancel()
        except BaseException:
            command.signal(signal.SIGKILL)  # whatever happened to us, nothing is left running
            raise
    code = shell_code(status)
    task.result({"exit_code": code})
    if job.stopped or (status and not received.isdisjoint(ENDING)):
        raise CommandCancelled(code, job.stopped_by)
    if status:
        raise CommandFailed(code, _describe(status))


def _print_warnings(level: int) -> None:
    """Print the SDK's log records on stderr, in the form of all our messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(HarmlessFormatter("fanline: warning: %(message)s"))
    logger = logging.getLogger("fanline")
    logger.addHandler(handler)
    logger.setLevel(level)


async def _start(argv: list[str]) -> CommandProcess:
    try:
        return await start_command(argv)
    except OSError as error:
        why = error.strerror or error
        complain(f"cannot run {argv[0]}: {why}")
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise CommandFailed(code, f"cannot run {_program(argv)}: {why}") from None


def _program(argv: list[str]) -> str:
    """All that viewers learn of the command line unless a title is given: arguments and paths may hold secrets."""
    return PurePath(argv[0]).name or "command"


def _title(title: str, rights: ViewerRights) -> str:
    return short("title", title, MAX_NAME - len(rights.title_suffix)) + rights.title_suffix


def _describe(status: int) -> str:
    if status > 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _id_or_none(text: str | None) -> str | None:
    return None if text is None else task_id(text)


def add_run(app: typer.Typer) -> None:
    """Register the command."""
    app.command("run", short_help="Run a command as a task that others can watch and stop.", **_OPTIONS)(_run)


_OPTIONS: dict[str, Any] = {"context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": False}}


def _run(
    command: Annotated[list[str], typer.Argument(metavar="CMD ARGS...", help="Command to run, without a shell.")],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="ID", callback=_id_or_none, help="ID of the task. [default: the command's name and a suffix]"
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title that viewers see. [default: the program's name]")] = None,
    heartbeat: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds of silence after which viewers see the task as stalled.")
    ] = 10.0,
    grace: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds from SIGTERM to SIGKILL when a viewer stops the command.")
    ] = 10.0,
    takes_input: Annotated[
        bool, typer.Option("--input", help="Let viewers type: their input goes to the command's stdin.")
    ] = False,
    no_cancel: Annotated[bool, typer.Option("--no-cancel", help="Do not let viewers stop or pause it.")] = False,
    nats: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_nkey: NatsNkey = None,
    nats_tls_ca: NatsTlsCa = None,
    nats_tls_cert: NatsTlsCert = None,
    nats_tls_key: NatsTlsKey = None,
) -> None:
    """Run a command as a task: viewers see its output, progress and end, and can stop it.

    \b
      fanline run -- make -j8
      fanline run --task nightly --title "Nightly build" -- ./build.sh --all
      fanline tail task:nightly

    The command's output also appears here, unchanged. Progress is read from lines such as 42% or [3/10]. A viewer's
    `cancel` sends SIGTERM, and SIGKILL --grace seconds later; `pause` and `resume` send SIGSTOP and SIGCONT; with
    --input, `input` writes a line to the command's stdin. Our stdin is passed on to the command. Of the command line,
    viewers see the program's name only. Without a server the command runs nevertheless.

    Exit code: the command's; 128 + n if signal n killed it; 127 if there is no such command, 126 if it cannot be run.
    """
    rights = ViewerRights(type=takes_input, stop=not no_cancel)
    options = RunOptions(
        argv=command,
        id=task or fresh_id(PurePath(command[0]).name),
        title=_title(title or _program(command), rights),
        heartbeat=heartbeat,
        grace=grace,
        nats=nats_from_flags(
            nats, creds=nats_creds, nkey=nats_nkey, tls_ca=nats_tls_ca, tls_cert=nats_tls_cert, tls_key=nats_tls_key
        ),
        rights=rights,
    )
    run(partial(execute, options))
