"""`fanline run`: any command as a task that viewers follow and stop. The command never depends on Fanline."""

import logging
import shlex
import signal
import sys
from functools import partial
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple

import trio
import typer

from fanline.cli.options import nats_url, task_id
from fanline.cli.run.command_process import Command, Copy, shell_code, start_command
from fanline.cli.run.job import Job
from fanline.cli.runner import complain, note, run
from fanline.errors import FanlineError
from fanline.producer.calls import TaskCancelled
from fanline.producer.discovery import has_server
from fanline.producer.fresh_id import fresh_id
from fanline.producer.running_task import AsyncTask
from fanline.producer.task import Task

NOT_EXECUTABLE = 126  # as shells say it
NOT_FOUND = 127
MAX_TITLE = 256  # characters
LINGER_SECONDS = 5.0
ENDING = (signal.SIGINT, signal.SIGTERM)  # who sends one wants the command to end
FORWARDED = (*ENDING, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Order(NamedTuple):
    """What to run, and how to tell of it."""

    argv: list[str]
    id: str
    title: str
    heartbeat: float
    """Seconds."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    nats: str | None


class CommandFailed(FanlineError):  # noqa: N818  # reads as what happened
    """The command did not succeed. str() is what viewers read, `code` what we exit with."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class CommandCancelled(TaskCancelled):
    """The command ended because it was asked to; `code` is what we exit with."""

    def __init__(self, code: int, by: str | None = None) -> None:
        super().__init__(by)
        self.code = code


async def execute(order: Order) -> int:
    """Run the command to its end; the exit code for us."""
    here = has_server(order.nats)
    _print_warnings(logging.WARNING if here else logging.ERROR)
    if here:
        note(f"task:{order.id}, watch it with: fanline tail task:{order.id}")
    else:
        note("warning: no running `fanline serve` found; the command runs all the same, without viewers")
    # One that comes later is used; but at the end nobody need wait for one that was never there.
    linger = LINGER_SECONDS if here else 1.0
    task = Task(order.id, title=order.title, kind="command", heartbeat=order.heartbeat, nats=order.nats, linger=linger)
    try:
        async with task as producer:
            await _perform(order, producer)
    except (CommandFailed, CommandCancelled) as ending:
        return ending.code
    return 0


async def _perform(order: Order, task: AsyncTask) -> None:
    """Run it, and raise how it ended, unless that was by itself and well."""
    received: set[int] = set()

    async def forward() -> None:
        async for number in signals:
            received.add(number)
            command.end(number)

    # What nohup has us ignore, the command ignores, too.
    heard = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*heard) as signals:
        command = await _started(order.argv)
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # Ctrl-Z and `bg` must not stop us, and so the command
        job = Job(command, task, order.grace)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(forward)
                status = await job.run(Copy(sys.stdout), Copy(sys.stderr))
                nursery.cancel_scope.cancel()
        except BaseException:
            command.signal(signal.SIGKILL)  # nothing is left running, whatever happened to us
            raise
    code = shell_code(status)
    task.result({"exit_code": code})
    if job.stopped or (status and not received.isdisjoint(ENDING)):
        raise CommandCancelled(code, job.stopped_by)
    if status:
        raise CommandFailed(code, _in_words(status))


def _print_warnings(level: int) -> None:
    """What the task has to say goes to stderr, in the form of all commands."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fanline: warning: %(message)s"))
    logger = logging.getLogger("fanline")
    logger.addHandler(handler)
    logger.setLevel(level)


async def _started(argv: list[str]) -> Command:
    try:
        return await start_command(argv)
    except OSError as error:
        text = f"cannot run {argv[0]}: {error.strerror or error}"
        complain(text)
        raise CommandFailed(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE, text) from None


def _in_words(status: int) -> str:
    if status > 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _id_or_none(text: str | None) -> str | None:
    return None if text is None else task_id(text)


def add_run(app: typer.Typer) -> None:
    """Add the command to the `fanline` command line."""
    app.command("run", short_help="Run a command as a task that others can watch and stop.", **_OPTIONS)(_run)


_OPTIONS: dict[str, Any] = {"context_settings": {"ignore_unknown_options": True, "allow_interspersed_args": False}}


def _run(
    command: Annotated[list[str], typer.Argument(metavar="CMD ARGS...", help="What to run, as after `env`: no shell.")],
    task: Annotated[
        str | None,
        typer.Option(
            metavar="ID", callback=_id_or_none, help="Id of the task. [default: the command's name and a suffix]"
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What viewers read. [default: the command]")] = None,
    heartbeat: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds of silence after which viewers are told that it stalls.")
    ] = 10.0,
    grace: Annotated[
        float, typer.Option(min=0, max=86_400, help="Seconds from SIGTERM to SIGKILL when a viewer stops it.")
    ] = 10.0,
    nats: Annotated[
        str | None,
        typer.Option(metavar="URL", callback=nats_url, help="NATS to publish to. [default: the local server's]"),
    ] = None,
) -> None:
    """Run a command as a task: its output, progress and end are seen by viewers, who can stop it and type to it.

    \b
      fanline run -- make -j8
      fanline run --task nightly --title "Nightly build" -- ./build.sh --all
      fanline tail task:nightly

    What it writes comes out here unchanged. Progress is read from lines such as 42% or [3/10]. A viewer's `cancel` is
    a SIGTERM, and a SIGKILL --grace seconds later; `input` is a line on its stdin; `pause` and `resume` are SIGSTOP and
    SIGCONT. Its own stdin is ours. Without a server it runs all the same.

    Exit code: the command's; 128 + n if signal n killed it; 127 if there is no such command, 126 if it cannot be run.
    """
    order = Order(
        argv=command,
        id=task or fresh_id(PurePath(command[0]).name),
        title=_cut(title or shlex.join(command)),
        heartbeat=heartbeat,
        grace=grace,
        nats=nats,
    )
    run(partial(execute, order))


def _cut(title: str) -> str:
    return title if len(title) <= MAX_TITLE else f"{title[: MAX_TITLE - 3]}..."
