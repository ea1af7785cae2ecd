"""The client of a command: where the server is, and the token that it wants.

The token comes from the environment, never from the command line, which every user of the machine can read. The server
of the same user needs none: its state file holds the secret, and the command signs a token for itself.
"""

import os
import time
from collections.abc import Callable
from functools import partial

from fanline.client.client import Client, Codec
from fanline.local import find_server
from fanline.protocol.serve_state import ServeState

TOKEN_VARIABLE = "FANLINE_TOKEN"
_OWN_SECONDS = 3600.0  # how long a token lives that a command signs for itself; each connection gets another


def open_client(
    url: str | None, *, codec: Codec = "json", notice: Callable[[str], None] = lambda sentence: None
) -> Client:
    """A client of the server at `url`, or of the local one. Raises NoServer."""
    url, token = server_and_token(url)
    return Client(url, codec=codec, notice=notice, token=token)


def server_and_token(url: str | None) -> tuple[str, str | Callable[[], str] | None]:
    """The URL of a server, by default of the local one, and the token to show there, or what makes one. NoServer."""
    token: str | Callable[[], str] | None = os.environ.get(TOKEN_VARIABLE)
    if url is None:
        server = find_server()
        url = server.url
        if token is None and server.token_secret:
            token = partial(_own_token, server)
    return url, token


def _own_token(server: ServeState) -> str:
    from fanline.protocol.auth.tokens import sign

    return sign({"roles": ["admin"], "exp": time.time() + _OWN_SECONDS}, server.token_secret.encode())
