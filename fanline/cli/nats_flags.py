"""The flags of commands that publish to NATS. They take precedence over the environment (fanline/nats/settings.py)."""

from contextlib import suppress
from typing import Annotated

import typer
from msgspec.structs import replace

from fanline.cli.viewer import local_server
from fanline.local import NoServer
from fanline.nats.settings import environment_options, find_options, given_options
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.serve_state import nats_options


def _urls(urls: str | None) -> str | None:
    try:
        return urls if urls is None or given_options(urls, {}) else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _file(text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar="FILE", help=text)
    return option


NatsUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        callback=_urls,
        help="NATS to publish to; several URLs are separated by commas. [default: $FANLINE_NATS, $NATS_URL, or the "
        "local server's]",
    ),
]
NatsCreds = Annotated[str | None, _file("Creds file for NATS (JWT and seed).")]
NatsNkey = Annotated[str | None, _file("File with the seed of an nkey for NATS.")]
NatsTlsCa = Annotated[str | None, _file("Certificate authority to trust for NATS, PEM.")]
NatsTlsCert = Annotated[str | None, _file("Client certificate for NATS, PEM.")]
NatsTlsKey = Annotated[str | None, _file("The private key of that certificate, PEM.")]


def nats_from_flags(urls: str | None, *, server: str | None = None, **files: str | None) -> NatsOptions | None:
    """What the flags say; None if they say nothing. `files`: the names of NatsOptions. Files without a URL are for the
    NATS that is used by default. `server`: the URL of the local server whose NATS it is to be; NoServer.
    """
    given = {name: path for name, path in files.items() if path}
    if urls is None and server is not None:
        return nats_options(local_server(server))
    if urls is None and not given:
        _say_which()
        return None
    try:
        options = given_options(urls) if urls else find_options(None)
        return given_options(replace(options, **given))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except NoServer:
        return None


def _say_which() -> None:
    """Of several local servers, the NATS of one is used, which is looked up for each connection."""
    if environment_options() is None:
        with suppress(NoServer):  # which is said where it is missed
            local_server()
