"""Which way a message takes: straight to NATS, or through a server. The first row that applies counts:

| there is                                        | it goes                                  |
|-------------------------------------------------|------------------------------------------|
| a NATS, given by the caller                     | to that one                              |
| a server, given by the caller                   | through it                               |
| a token, given by the caller or $FANLINE_TOKEN  | through the server $FANLINE_URL, or else |
|                                                 | through the local one                    |
| $FANLINE_NATS or $NATS_URL                      | to that NATS                             |
| $FANLINE_URL, which names a server elsewhere    | through it                               |
| neither                                         | to the NATS of the local server          |

NATS knows nothing of tokens: over it, the message would be published with a producer's rights, which are greater.
"""

import os

from fanline.local import TOKEN_VARIABLE, remote_server, server_url
from fanline.nats.settings import environment_options


def server_to_publish_through(*, nats: object, url: str | None, token: str | None) -> str | None:
    """The URL of the server; None: to NATS. Raises NoServer, and ValueError for a contradiction or a wrong URL."""
    if nats:
        if url or token:
            raise ValueError(f"give nats or {'url' if url else 'token'}, not both")
        return None
    if url or token or os.environ.get(TOKEN_VARIABLE):
        return server_url(url)
    return None if environment_options() else remote_server()
