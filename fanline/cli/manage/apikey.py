"""`fanline apikey`: the keys with which backends call the management API."""

import json
import re
from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

import typer

from fanline.cli.terminal import put, put_json
from fanline.cli.viewer import local_server
from fanline.local import NoServer, remote_server, server_name
from fanline.management import ManagementClient
from fanline.protocol.auth.api_keys import ID_CHARACTERS, ApiRight

apikey = typer.Typer(
    name="apikey",
    help="""Make, list and revoke the keys with which backends call the management API.

    \b
      fanline apikey create grafana --right metrics
      fanline apikey list
      fanline apikey revoke 1f0c93a7b2de

    Without --url, of the local server, which must be yours; with it, a key with the right admin is taken from
    FANLINE_API_KEY.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_apikey(app: typer.Typer) -> None:
    """Register the command."""
    app.add_typer(apikey, short_help="Make, list and revoke keys of the management API.")


def api_url(url: str | None) -> str | None:
    """Checked; of a server, or of its WebSocket endpoint; or the port of a local one. Says which one is taken of
    several.
    """
    if url is None:
        if remote_server() is None:
            with suppress(NoServer):  # which is said by the call itself
                local_server()
        return None
    try:
        name = server_name(url)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    parts = urlsplit(name)
    return name if name.isdecimal() else f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}"


ApiUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        "--port",
        metavar="URL|PORT",
        callback=api_url,
        help="Server, as in https://fanline.example, or the port of a local one. [default: $FANLINE_URL, or the local "
        "server that started last]",
    ),
]


def _key_id(text: str) -> str:
    if not re.fullmatch(rf"[0-9a-f]{{{ID_CHARACTERS}}}", text):
        raise typer.BadParameter(f"{text!r} is no id of a key: `fanline apikey list` shows them")
    return text


@apikey.command(short_help="Make a key and print it, once.")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who has it, and what for.")],
    right: Annotated[list[ApiRight], typer.Option(help="What it may do; may be repeated. `admin` may do everything.")],
    days: Annotated[float | None, typer.Option(min=0.001, max=36_500, help="After which it expires.")] = None,
    url: ApiUrl = None,
) -> None:
    """Make a key and print it. It is stored nowhere in readable form: keep it, or make another one."""
    wanted = {"name": name, "rights": [each.value for each in right], "days": days}
    put(ManagementClient(url).call("POST", "/keys", body=wanted)["key"])


@apikey.command("list", short_help="Show the keys, without their texts.")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per key, for programs.")] = False,
    url: ApiUrl = None,
) -> None:
    """Show id, name, rights, and when each key was made and expires."""
    for key in ManagementClient(url).call("GET", "/keys"):
        if as_json:
            put_json(json.dumps(key, ensure_ascii=False))
            continue
        rights = ",".join(key["rights"])
        put(f"{key['id']}  {key['name']}  {rights}  {key['created']}  {key['expires'] or 'never expires'}")


@apikey.command(short_help="Take a key back.")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", callback=_key_id, help="As `fanline apikey list` shows it.")],
    url: ApiUrl = None,
) -> None:
    """Take a key back: it is accepted nowhere from now on."""
    ManagementClient(url).call("DELETE", f"/keys/{key_id}")
