"""`fanline tail`: watch a task, stop it, answer its questions."""

import getpass
import socket
import sys
from enum import Enum, auto
from functools import partial
from typing import Annotated

import trio
import typer
from rich.console import Console

from fanline.cli.options import TaskId, Url
from fanline.cli.runner import run
from fanline.cli.terminal import note
from fanline.cli.viewer import open_client
from fanline.cli.watch.task_screen import JsonScreen, LineScreen, LiveScreen, Screen
from fanline.client.task_view import TaskView
from fanline.errors import ServerError
from fanline.protocol.errors import ErrorCode
from fanline.protocol.messages.answers import NOT_DELIVERED
from fanline.protocol.messages.commands import MAX_LINES
from fanline.protocol.tasks.states import TaskState

_FRAME_SECONDS = 0.1


class Decision(Enum):
    """The answer to a question that offers no choice."""

    APPROVE = auto()
    REJECT = auto()


def add_tail(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Watch a task; stop it, answer its questions.")(tail)


def tail(
    task: TaskId,
    cancel: Annotated[bool, typer.Option("--cancel", help="Ask it to stop, and watch until it has.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --cancel: end it even if no producer is attached.")
    ] = False,
    approve: Annotated[bool, typer.Option("--approve", help="Approve its open question, and exit.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Reject its open question, and exit.")] = False,
    text: Annotated[
        str | None,
        typer.Option("--input", metavar="TEXT", help="Answer its question, or send it input, and exit."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on after the end: there may be another attempt.")
    ] = False,
    lines: Annotated[int, typer.Option(min=0, max=MAX_LINES, help="Begin with the newest N log lines.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON envelope per line, for scripts.")] = False,
    url: Url = None,
) -> None:
    """Watch a task until it ends: its progress, its ETA, its log. Ctrl-C only detaches; the task continues.

    \b
      fanline tail task:build-42
      fanline tail build-42 --cancel
      fanline tail build-42 --approve
      fanline tail build-42 --input "the blue one"
      fanline tail build-42 --json | jq -c '[.e, .d]'

    On a terminal the log scrolls above a live display, with lines of stderr in red. Elsewhere log lines go to stdout,
    and everything else to stderr. With --json the first line is the task's snapshot, followed by its events as
    delivered. If the task is not known yet, the command waits for it. A task that failed and is about to be tried again
    has not ended; one that has ended may be started once more, and --follow waits for that.

    \b
    Exit codes:
      0    completed; with --cancel: cancelled; with --approve, --reject and --input: stored or delivered
      1    ended otherwise; or an error, reported on stderr
      130  Ctrl-C: detached
    """
    if cancel + approve + reject + (text is not None) > 1:
        raise typer.BadParameter("give one of --cancel, --approve, --reject and --input")
    if force and not cancel:
        raise typer.BadParameter("--force belongs to --cancel")
    if follow and cancel:
        raise typer.BadParameter("--cancel watches until the task has stopped: give it without --follow")
    answer = Decision.APPROVE if approve else Decision.REJECT if reject else text
    if answer is not None:
        run(partial(_answer, task, url, answer))
    screen = _screen(as_json=as_json)
    run(partial(_watch, task, url, lines, screen, follow=follow, cancel=cancel, force=force))


def _screen(*, as_json: bool) -> Screen:
    if as_json:
        return JsonScreen()
    console = Console(highlight=False)
    return LiveScreen(console) if console.is_terminal and sys.stdout.isatty() else LineScreen()


def _who() -> str | None:
    """The name under which we answer where the server has no users: user and machine."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"[:64]
    except (OSError, KeyError):
        return None


async def _answer(name: str, url: str | None, answer: Decision | str) -> int:
    async with open_client(url) as client, client.task(name, lines=0, by=_who()) as task:
        if answer is Decision.APPROVE:
            told = await task.approve()
        elif answer is Decision.REJECT:
            told = await task.reject()
        else:
            told = await task.send_input(answer)
        if told == NOT_DELIVERED:
            note(f"your answer is stored; {task.channel} gets it when its producer can be reached")
        else:
            note(f"your answer was delivered to {task.channel}")
    return 0


async def _watch(
    name: str, url: str | None, lines: int, screen: Screen, *, follow: bool, cancel: bool, force: bool
) -> int:
    async with (
        open_client(url, notice=screen.tell) as client,
        client.task(name, lines=lines, follow=follow, by=_who()) as task,
    ):
        try:
            with screen:
                await _follow(task, screen, cancel=cancel, force=force)
        except* trio.Cancelled:
            note(f"detached; {task.channel} continues, and `fanline tail {task.channel}` shows it again")
            raise
        return 0 if task.snapshot.state is (TaskState.CANCELLED if cancel else TaskState.COMPLETED) else 1


async def _follow(task: TaskView, screen: Screen, *, cancel: bool, force: bool) -> None:
    """Show the task until its updates end."""
    if cancel and task.snapshot.state is TaskState.UNKNOWN:
        raise ServerError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {task.channel}")
    screen.begin(task, task.joined)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_refresh, screen)
        if cancel and not task.snapshot.ended_for_good:
            nursery.start_soon(_cancel, task, screen, force)
        async for update in task:
            screen.show(update)
        nursery.cancel_scope.cancel()


async def _refresh(screen: Screen) -> None:
    while True:
        screen.refresh()
        await trio.sleep(_FRAME_SECONDS)


async def _cancel(task: TaskView, screen: Screen, force: bool) -> None:
    screen.tell(f"asking {task.channel} to stop")
    try:
        if await task.cancel(force=force) == NOT_DELIVERED:
            screen.tell("the request is stored; the task gets it when its producer can be reached")
    except ServerError as error:
        if error.code == ErrorCode.NO_PRODUCER:
            raise ServerError(error.code, f"{error.message}; --force ends it nevertheless") from None
        raise
