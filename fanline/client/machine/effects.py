"""What the machine asks its shell to do, in order. The shell decides nothing."""

from typing import NamedTuple


class AskToken(NamedTuple):
    """Ask for a token, and report it with `authorized` or `not_authorized`."""


class RenewToken(NamedTuple):
    """Ask for another token, and report it with `renewed` or `not_renewed`. The connection goes on meanwhile."""


class Connect(NamedTuple):
    """Open a WebSocket once the last one is closed: then `opened`, `reading` and `received`, and `lost` if it ends or
    could not be opened.
    """

    token: str | None


class Transmit(NamedTuple):
    """Send one message. It is lost with the WebSocket if that has ended."""

    payload: bytes


class Disconnect(NamedTuple):
    """Close the WebSocket, or give up opening it. There is nothing to report."""


class Tell(NamedTuple):
    """Tell the user."""

    sentence: str


ShellEffect = AskToken | RenewToken | Connect | Transmit | Disconnect | Tell
