"""Whether there is a server that a task could be told to."""

from fanline.local import NoServer, find_server
from fanline.producer.checks import environment_url


def has_server(nats: str | None = None) -> bool:
    """Whether an address of NATS is known: given, in $NATS_URL, or by a `fanline serve` that runs on this machine."""
    if nats or environment_url():
        return True
    try:
        find_server()
    except NoServer:
        return False
    return True
