"""The client of a command: where the server is, and the token that it wants.

The token comes from the environment, never from the command line, which every user of the machine can read. The server
of the same user needs none: its state file holds the secret, and the command signs a token for itself.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from fanline.cli.terminal import note
from fanline.client.arguments import Codec
from fanline.client.client import Client
from fanline.local import TOKEN_VARIABLE, NoServer, chosen_server, find_server, remote_server, running_servers
from fanline.protocol.serve_state import ServeState

_OWN_SECONDS = 3600.0  # how long a token lives that a command signs for itself; each connection gets another


def open_client(
    url: str | None, *, codec: Codec = "json", notice: Callable[[str], None] = lambda sentence: None
) -> Client:
    """A client of the server at `url`, or of the local one. Raises NoServer."""
    url, token = server_and_token(url)
    return Client(url, codec=codec, notice=notice, token=token)


def server_and_token(url: str | None) -> tuple[str, str | Callable[[], str] | None]:
    """The URL of a server, by default of the one in FANLINE_URL or the local one, and the token to show there, or what
    makes one. NoServer.
    """
    url = url or remote_server()
    token = os.environ.get(TOKEN_VARIABLE)
    try:
        server = local_server(url)
    except NoServer:
        if url is None:
            raise
        return url, token
    return url or server.url, token or (partial(_own_token, server) if server.token_secret else None)


def local_server(url: str | None = None) -> ServeState:
    """The local server that a command is for; if it had to choose one of several, it says which. Raises NoServer."""
    server = find_server(url=url)
    if url is None and chosen_server() is None:
        say_which(server)
    return server


def say_which(server: ServeState) -> None:
    """Tell the person at the terminal which server was taken, if there are others that nothing spoke against."""
    others = [other.url for other in running_servers() if other.pid != server.pid]
    if others:
        note(
            f"this is for {server.url}, the server that started last; --port or FANLINE_URL names another one "
            f"({', '.join(others)})"
        )


def _own_token(server: ServeState) -> str:
    from fanline.protocol.auth.tokens import sign

    return sign({"roles": ["admin"], "exp": time.time() + _OWN_SECONDS}, server.token_secret.encode())
