"""Whether there is a server that a task could be told to."""

import os

from fanline._local import NoServer, find_server


def has_server(nats: str | None = None) -> bool:
    """Whether an address of NATS is known: given, in $NATS_URL, or by a `fanline serve` that runs on this machine."""
    if nats or os.environ.get("NATS_URL"):
        return True
    try:
        find_server()
    except NoServer:
        return False
    return True
