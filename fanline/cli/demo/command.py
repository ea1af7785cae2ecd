"""`fanline demo`: see it work."""

from functools import partial
from typing import Annotated

import typer

from fanline.cli.demo.demo import run_demo
from fanline.cli.runner import run
from fanline.cli.server.extra import require_server


def add_demo(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(demo)


def demo(
    seconds: Annotated[float | None, typer.Option(min=1, help="Stop after this time. [default: at Ctrl-C]")] = None,
) -> None:
    """See it work: a server, builds that report their progress, and clients that watch them.

    Starts `fanline serve` with two workers in a temporary directory, publishes the progress of sample builds over NATS,
    and counts what real clients receive. Exits with code 1 if a message was lost.
    """
    require_server("fanline demo", embedded_nats=True)
    run(partial(run_demo, seconds), interrupted=0)
