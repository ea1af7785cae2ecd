"""The `fanline` command: its entry point, and its smallest commands. The others are in modules of their own."""

import os
import sys
from functools import partial
from typing import Annotated

import typer
from typer.exceptions import TyperException

from fanline import __version__
from fanline.cli.admin import add_admin
from fanline.cli.apikey import add_apikey
from fanline.cli.demo.demo import run_demo
from fanline.cli.probe.command import add_probe
from fanline.cli.publish import add_pub
from fanline.cli.run.command import add_run
from fanline.cli.runner import FAILURE, run
from fanline.cli.server_extra import require_server
from fanline.cli.subscribe import add_sub
from fanline.cli.tail import add_tail
from fanline.cli.tasks import add_tasks
from fanline.cli.terminal import complain, put
from fanline.cli.token import add_token
from fanline.errors import FanlineError
from fanline.local import find_server, nats_address
from fanline.protocol.nats.addresses import url_of
from fanline.protocol.serve_state import as_engine

app = typer.Typer(
    name="fanline",
    help="""Run any job as a task, and watch and control it live from any number of places.

    Begin with `fanline demo`, or start a server in one terminal and use two others:

    \b
      fanline serve
      fanline run --task build-42 -- make
      fanline tail task:build-42
      fanline tasks

    Besides tasks there are channels, for messages of any kind:

    \b
      fanline sub news:all
      fanline pub news:all '{"title": "hello"}'
    """,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line. Errors are one line on stderr; the exit code is 0, 1, 2 or 128 + signal."""
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
        put(f"fanline {__version__}")
        raise typer.Exit


@app.callback()
def _fanline(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def serve(context: typer.Context) -> None:
    """Run a server. `fanline serve --help` shows its options."""
    require_server("fanline serve")
    os.execv(sys.executable, [sys.executable, "-P", "-m", "fanline.workers", *context.args])  # noqa: S606  # no shell wanted


def demo(
    seconds: Annotated[float | None, typer.Option(min=1, help="Stop after this time. [default: at Ctrl-C]")] = None,
) -> None:
    """See it work: a server, builds that report their progress, and clients that watch them.

    Starts `fanline serve` with two workers in a temporary directory, publishes the progress of sample builds over NATS,
    and counts what real clients receive. Exits with code 1 if a message was lost.
    """
    require_server("fanline demo", embedded_nats=True)
    run(partial(run_demo, seconds), interrupted=0)


def nats_url(
    engine: Annotated[
        bool, typer.Option("--engine", help="With the engine's credentials, which may do everything there.")
    ] = False,
) -> None:
    """Print the URL of the local server's NATS, with its credentials: all that a producer needs.

    \b
      export NATS_URL=$(fanline nats-url)

    Producers may publish events, and hear and answer the calls to their tasks. To look into streams and buckets with
    the tools of NATS, use --engine.
    """
    server = find_server()
    put(url_of(nats_address(as_engine(server) if engine else server)))


# In the order of the help: the main job first.
add_run(app)
add_tail(app)
add_tasks(app)
app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(serve)
app.command(short_help="See it work: a server, builds, and clients that watch.")(demo)
app.command("nats-url", short_help="Print the URL of the local server's NATS, for producers.")(nats_url)
add_pub(app)
add_sub(app)
add_token(app)
add_probe(app)
add_apikey(app)
add_admin(app)
