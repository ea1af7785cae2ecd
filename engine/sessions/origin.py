"""Where a connection comes from, for those who look at connections."""

import sys
from typing import NamedTuple

from fanline.engine.clock import unix_ms

_MAX_AGENT = 200  # characters that are kept of a User-Agent


class Origin(NamedTuple):
    """Kept as long as the connection, so it is small."""

    address: str
    """The client's, as far as trusted proxies tell."""
    user_agent: str
    connected: int
    """Unix ms."""


UNKNOWN = Origin("", "", 0)


def origin_of(address: str, user_agent: str) -> Origin:
    """That of a client that is being connected. What many clients have in common is kept once."""
    return Origin(address, sys.intern(user_agent[:_MAX_AGENT]), unix_ms())
