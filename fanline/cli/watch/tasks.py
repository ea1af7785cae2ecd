"""`fanline tasks`: the running tasks, from the table that the server publishes in the channel `tasks:running`."""

import sys
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import trio
import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fanline.cli.options import Url
from fanline.cli.runner import run
from fanline.cli.terminal import note, put, put_json, styled
from fanline.cli.viewer import open_client
from fanline.cli.watch.task_screen import STYLES, unix_ms
from fanline.cli.watch.task_text import duration
from fanline.client.client import Client
from fanline.client.message import Message
from fanline.client.subscription import Subscription
from fanline.errors import ConnectionLost, ServerError
from fanline.protocol.errors import ErrorCode
from fanline.protocol.tasks.estimate import seconds_left
from fanline.protocol.tasks.states import TaskState

CHANNEL = "tasks:running"
_FRAME_SECONDS = 0.5
_URGENT = (TaskState.STALLED, TaskState.WAITING_INPUT)
_COLUMNS = ("state", "progress", "eta", "elapsed", "heard", "stage", "title")  # besides the ID
_FIGURES = ("progress", "eta", "elapsed", "heard")
_LONGEST_ID = 40  # columns; a longer ID takes several lines
_PIPE_WIDTH = 160  # columns where there is no terminal


class RunningTask(msgspec.Struct):
    """A row of the table. Times in Unix ms; `eta` in seconds, as of `updated`."""

    id: str
    state: TaskState
    ns: str = "task"
    attempt: int = 1
    title: str | None = None
    stage: str | None = None
    percent: float | None = None
    eta: float | None = None
    updated: int | None = None
    started: int | None = None


class RunningTasks(msgspec.Struct):
    """The table, the last changed task first. `total` includes the tasks that did not fit in."""

    tasks: list[RunningTask] = []
    total: int = 0


def add_tasks(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(tasks)


def tasks(
    once: Annotated[bool, typer.Option("--once", help="Print the table once and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as one JSON object, and exit.")] = False,
    end_stalled: Annotated[
        bool, typer.Option("--end-stalled", help="End the stalled tasks whose producers are gone, and exit.")
    ] = False,
    url: Url = None,
) -> None:
    """Show the running tasks: on a terminal as a live table until Ctrl-C, elsewhere once. Tasks that need attention
    (stalled, or waiting for an answer) come first, then the ones that changed last.

    \b
      fanline tasks
      fanline tasks --once
      fanline tasks --json | jq -r '.tasks[].id'

    Watch one of them with `fanline tail task:ID`. A stalled task whose producer is gone stays in the table until it is
    ended: by --end-stalled, by `fanline tail task:ID --cancel --force`, or by the server after a day.

    Exits with code 0.
    """
    if end_stalled:
        run(partial(_end_stalled, url))
    if once or as_json or not sys.stdout.isatty():
        run(partial(_print_once, url, as_json=as_json))
    run(partial(_show, url), interrupted=0)


async def _print_once(url: str | None, *, as_json: bool) -> int:
    async with open_client(url, notice=note) as client, client.subscribe(CHANNEL, last=1) as messages:
        data = (await anext(messages)).data if CHANNEL not in messages.positions else {"tasks": [], "total": 0}
        if as_json:
            put_json(msgspec.json.encode(data).decode())
        else:
            console = Console(highlight=False)
            if not console.is_terminal:
                console.width = _PIPE_WIDTH
            console.print(table(_running(data), unix_ms()))
    return 0


async def _end_stalled(url: str | None) -> int:
    async with open_client(url, notice=note) as client, client.subscribe(CHANNEL, last=1) as messages:
        running = RunningTasks() if CHANNEL in messages.positions else _running((await anext(messages)).data)
        stalled = [f"{row.ns}:{row.id}" for row in running.tasks if row.state is TaskState.STALLED]
        for channel in stalled:
            put(await _end(client, channel))
    if not stalled:
        put("no stalled tasks")
    return 0


async def _end(client: Client, channel: str) -> str:
    """End a task if it has no producer, which is found out by asking for one; what has become of it."""
    try:
        await client.call(channel, "ping")
    except ServerError as error:
        if error.code != ErrorCode.NO_PRODUCER:
            return f"{channel} goes on: {error.message}"
    else:
        return f"{channel} goes on: its producer answers"
    try:
        await client.call(channel, "cancel", {"force": True})
    except ServerError as error:  # without the right to do so, or it has ended meanwhile
        return f"{channel} goes on: {error.message}"
    return f"{channel} has been ended"


async def _show(url: str | None) -> int:
    console = Console(highlight=False)

    def tell(sentence: str) -> None:
        console.print(styled(f"- {sentence}", "cyan"))  # above the table

    async with open_client(url, notice=tell) as client, client.subscribe(CHANNEL, last=1) as messages:
        newest = [RunningTasks()]  # one item, which _receive replaces
        with Live(console=console, auto_refresh=False) as live:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_receive, messages, newest)
                while True:
                    live.update(table(newest[0], unix_ms(), console.height - 3), refresh=True)
                    await trio.sleep(_FRAME_SECONDS)


async def _receive(messages: Subscription[Message], newest: list[RunningTasks]) -> None:
    async for message in messages:
        newest[0] = _running(message.data)


def _running(data: Any) -> RunningTasks:
    try:
        return msgspec.convert(data, RunningTasks)
    except msgspec.ValidationError as error:
        raise ConnectionLost(f"cannot read the table in {CHANNEL}: {error}", final=True) from None


def table(running: RunningTasks, now: int, room: int = 500) -> RenderableType:
    """The table as of `now`, in Unix ms, with at most `room` rows."""
    if not running.tasks:
        return styled("no running tasks")
    found = Table(box=None, pad_edge=False, header_style="bold")
    # The ID is never cut: it is what has to be typed.
    found.add_column("task", overflow="fold", min_width=min(_LONGEST_ID, max(len(row.id) for row in running.tasks)))
    for name in _COLUMNS:
        justify: Literal["right", "left"] = "right" if name in _FIGURES else "left"
        found.add_column(name, no_wrap=True, overflow="ellipsis", justify=justify)
    shown = sorted(running.tasks, key=lambda row: row.state not in _URGENT)[: max(1, room)]
    for row in shown:
        found.add_row(*_cells(row, now))
    left_out = running.total - len(shown)
    if left_out > 0:
        found.caption = f"and {left_out} more"
    return found


def _cells(row: RunningTask, now: int) -> list[Text]:
    left = seconds_left(row.eta, row.updated, now)
    state = styled(row.state, STYLES.get(row.state, "blue"))
    if row.attempt > 1:
        state.append(f" (attempt {row.attempt})", style="dim")
    texts = (
        "" if row.percent is None else f"{row.percent:.0f} %",
        "" if left is None else duration(left),
        "" if row.started is None else duration(max(0, now - row.started) / 1000),
        "" if row.updated is None else f"{duration(max(0, now - row.updated) / 1000)} ago",
        row.stage or "",
        row.title or "",
    )
    return [styled(row.id, "bold"), state, *map(styled, texts)]
