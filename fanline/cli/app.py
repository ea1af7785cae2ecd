"""The `fanline` command. Each subcommand reads its arguments here; what it does is in a module of its own."""

import os
import sys
from functools import partial
from typing import Annotated

import typer
from typer.exceptions import TyperException

from fanline import __version__
from fanline.cli.demo.demo import run_demo
from fanline.cli.options import (
    CodecName,
    CodecOption,
    Url,
    channel_name,
    channel_names,
    nats_url,
    short_text,
    websocket_url,
)
from fanline.cli.publish import NotJson, Publication, parse_json, publish_to_nats, publish_to_url
from fanline.cli.run.command import add_run
from fanline.cli.runner import FAILURE, complain, run
from fanline.cli.server_extra import require_server
from fanline.cli.subscribe import Begin, print_messages
from fanline.cli.tail import add_tail
from fanline.cli.tasks import add_tasks
from fanline.client.message import Position
from fanline.errors import FanlineError
from fanline.local import find_server, nats_address
from fanline.protocol.nats.client_protocol import url_of

app = typer.Typer(
    name="fanline",
    help="""Run any job as a task, and watch and control it live from very many places.

    Begin with `fanline demo`, or start a server in one terminal, and use two others:

    \b
      fanline serve
      fanline run --task build-42 -- make
      fanline tail task:build-42
      fanline tasks

    Beside tasks there are channels, for messages of any kind:

    \b
      fanline sub news:all
      fanline pub news:all '{"title": "hello"}'
    """,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
add_run(app)
add_tail(app)
add_tasks(app)


def main() -> None:
    """Entry point: run the command line, complain in one line, exit with 0, 1, 2 or 128 + signal."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="fanline", standalone_mode=False)
    except TyperException as error:
        complain(f"{error.format_message()} (see `fanline --help`)")
        code = error.exit_code
    except FanlineError as error:
        complain(str(error))
        code = FAILURE
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fanline {__version__}")
        raise typer.Exit


def _json_value(text: str) -> str:
    try:
        return text if text == "-" else str(parse_json(text)) and text
    except NotJson as error:
        raise typer.BadParameter(str(error)) from None


@app.callback()
def _fanline(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def serve(context: typer.Context) -> None:
    """Run a server. `fanline serve --help` shows its options."""
    require_server("fanline serve")
    os.execv(sys.executable, [sys.executable, "-P", "-m", "fanline.workers", *context.args])  # noqa: S606  # no shell wanted


@app.command(short_help="See it work: a server, builds that report progress, people who watch.")
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End by itself after this time. [default: at Ctrl-C]")
    ] = None,
) -> None:
    """See it work: a server, builds that report their progress, and people who watch them.

    Starts `fanline serve` with two workers in a temporary directory, publishes the progress of sample builds over NATS,
    and receives it with real clients, counting. Exit code 1 if a message was lost.
    """
    require_server("fanline demo", embedded_nats=True)
    run(partial(run_demo, seconds), interrupted=0)


@app.command(name="nats-url", short_help="Print the URL of the local server's NATS, for producers.")
def nats_url_command() -> None:
    """Print the URL of the NATS of the local `fanline serve`, with its credentials: what a producer needs.

    \b
      export NATS_URL=$(fanline nats-url)
    """
    typer.echo(url_of(nats_address(find_server())))


@app.command(short_help="Publish a JSON value to a channel.")
def pub(
    channel: Annotated[str, typer.Argument(callback=channel_name, help="Where to, as in task:42.")],
    value: Annotated[
        str, typer.Argument(metavar="JSON", callback=_json_value, help="Any JSON value; - reads one per line of stdin.")
    ],
    event: Annotated[
        str | None, typer.Option(callback=short_text, help="Kind of the message, as in task_progress.")
    ] = None,
    id: Annotated[  # noqa: A002  # the option's name
        str | None,
        typer.Option(callback=short_text, help="Id of the message; a durable channel takes the same id only once."),
    ] = None,
    nats: Annotated[
        str | None,
        typer.Option(metavar="URL", callback=nats_url, help="NATS to publish to. [default: the local server's]"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="WS_URL", callback=websocket_url, help="Publish through this server instead.")
    ] = None,
    codec: CodecOption = CodecName.JSON,
) -> None:
    """Publish a JSON value to a channel, and return when it is stored, or taken if the channel is ephemeral.

    Through the NATS of the local `fanline serve` by default, like any producer. Publishing again with the same --id
    is safe on a durable channel: within two minutes it is the same message.

    \b
      fanline pub news:all '{"title": "hello"}'
      fanline pub news:all '"a string needs its quotes"'
      fanline pub task:42 '{"percent": 40}' --event task_progress
      fanline pub news:all - < one-value-per-line.jsonl
      fanline pub news:all 1 --url ws://127.0.0.1:8080/ws
    """
    if nats is not None and url is not None:
        raise typer.BadParameter("give --nats or --url, not both")
    if value == "-" and id is not None:
        raise typer.BadParameter("--id is for one message, stdin may hold many")
    what = Publication(channel, event, id)
    if url is not None:
        run(partial(publish_to_url, what, value, url, codec.value))
    run(partial(publish_to_nats, what, value, nats))


@app.command(short_help="Print the messages of channels as they come.")
def sub(
    channels: Annotated[
        list[str], typer.Argument(metavar="CHANNEL...", callback=channel_names, help="As in news:all.")
    ],
    last: Annotated[int | None, typer.Option(min=1, help="Begin with the newest so many that are stored.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest that is stored.")] = False,
    offset: Annotated[int | None, typer.Option(min=0, help="Begin after this offset, the `o` of a message.")] = None,
    epoch: Annotated[
        str | None, typer.Option(help="The `ep` of that message: tells if its channel began anew.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many messages.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON envelope a line, for scripts.")] = False,
    codec: CodecOption = CodecName.JSON,
    url: Url = None,
) -> None:
    """Print the messages of channels as they come, until Ctrl-C.

    \b
      fanline sub news:all
      fanline sub task:42 news:all
      fanline sub task:42 --last 20
      fanline sub task:42 --json --count 10 | jq .d

    Only durable channels have a history to begin with. A lost connection is opened again, and what a durable channel
    had meanwhile comes then. Messages that are missing for good are told on stderr, or as a `gap` envelope with --json.
    Exit code 0; 130 if Ctrl-C came before --count was reached.
    """
    if (last is not None) + from_start + (offset is not None) > 1:
        raise typer.BadParameter("give one of --last, --from-start and --offset")
    if epoch is not None and offset is None:
        raise typer.BadParameter("--epoch belongs to an --offset")
    if offset is not None and len(channels) > 1:
        raise typer.BadParameter("--offset is of one channel")
    begin = Begin(last, from_start, None if offset is None else Position(offset, epoch))
    program = partial(print_messages, channels, begin, url, codec.value, count, as_json)
    run(program, **({} if count is not None else {"interrupted": 0}))
