"""`fanline serve` and `fanline nats-url`: a server on this machine."""

import os
import signal
import sys
from typing import Annotated

import typer

from fanline.cli.options import Url
from fanline.cli.server.extra import require_server
from fanline.cli.terminal import put


def add_serve(app: typer.Typer) -> None:
    """Register the command, which leaves its arguments to the server."""
    app.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(
        serve
    )


def add_nats_url(app: typer.Typer) -> None:
    """Register the command."""
    app.command("nats-url")(nats_url)


def serve(context: typer.Context) -> None:
    """Run a server. `fanline serve --help` shows its options."""
    require_server("fanline serve")
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # until it can take it
    os.execv(sys.executable, [sys.executable, "-P", "-m", "fanline.workers", *context.args])  # noqa: S606  # no shell wanted


def nats_url(
    engine: Annotated[
        bool, typer.Option("--engine", help="With the engine's credentials, which may do everything there.")
    ] = False,
    url: Url = None,
) -> None:
    """Print the URL of the local server's NATS, with its credentials: all that a producer needs.

    \b
      export NATS_URL=$(fanline nats-url)

    Producers may publish events, and hear and answer the calls to their tasks. To look into streams and buckets with
    the tools of NATS, use --engine.
    """
    from fanline.cli.viewer import local_server
    from fanline.local import nats_address
    from fanline.protocol.nats.addresses import url_of
    from fanline.protocol.serve_state import as_engine

    server = local_server(url)
    put(url_of(nats_address(as_engine(server) if engine else server)))
