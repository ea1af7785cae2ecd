"""Where a task's NATS is: given, in the environment, or that of a server on this machine."""

import logging
import os

from fanline.local import NoServer, find_server
from fanline.protocol.nats.client_protocol import NatsError, parse_url

_log = logging.getLogger("fanline")


def has_server(nats: str | None = None) -> bool:
    """Whether an address of NATS is known: `nats`, $NATS_URL, or a `fanline serve` that runs on this machine."""
    if nats or environment_url():
        return True
    try:
        find_server()
    except NoServer:
        return False
    return True


def environment_url() -> str | None:
    """The first URL in $NATS_URL, None if there is none. One that cannot be parsed is ignored, so that no job fails."""
    url = os.environ.get("NATS_URL", "").partition(",")[0].strip()
    if not url:
        return None
    try:
        parse_url(url)
    except NatsError as error:
        _log.warning("NATS_URL is ignored: %s", error)
        return None
    return url
