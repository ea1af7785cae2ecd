"""How the end of a WebSocket reads, and what it means, whichever library carried it."""

from collections.abc import Sequence
from typing import TypeVar

from fanline.client.machine.connection_life import OPEN_SECONDS
from fanline.errors import ConnectionLost, ConnectionRefused, reason_of
from fanline.protocol.errors import CloseReason

CLOSE_SECONDS = 1.0
"""For the closing handshake."""
_REASONS = {reason.code: reason for reason in CloseReason}
_PASSING_STATUS = {408, 425, 429}  # HTTP refusals that may end by themselves, besides 5xx
_Error = TypeVar("_Error", bound=BaseException)


def lost() -> ConnectionLost:
    """It ended without a close frame."""
    return ConnectionLost("the connection was lost")


def closed(code: int, text: str | None) -> ConnectionLost:
    """It ended with a close frame, or with what a library says in place of one."""
    if code == CloseReason.ABNORMAL.code:
        return lost()
    reason = _REASONS.get(code)
    text = text or (reason.text if reason else "without a reason")
    final = reason is not None and not reason.reconnect
    return ConnectionLost(f"the server closed the connection: {text} ({code})", code=code, final=final)


def rejected(url: str, status: int, body: bytes | None) -> ConnectionRefused:
    """The handshake was answered with another HTTP status than 101."""
    text = (body or b"").decode("utf-8", "replace").strip()
    final = status < 500 and status not in _PASSING_STATUS
    return ConnectionRefused(f"{url} refused with HTTP {status} {text[:400]}".rstrip(), status=status, final=final)


def unreachable(url: str, cause: BaseException) -> ConnectionRefused:
    """There is no WebSocket at this address."""
    nothing_listens = isinstance(cause, ConnectionRefusedError)
    why = "nothing listens there; is `fanline serve` running?" if nothing_listens else reason_of(cause)
    return ConnectionRefused(f"cannot connect to {url}: {why}")


def most_telling(errors: Sequence[_Error]) -> _Error:
    """Of what several addresses of a host have answered: that nothing listens there, or else what the first one has.
    (Where there is no IPv6, the first one of localhost cannot even be asked.)
    """
    return next((error for error in errors if isinstance(error, ConnectionRefusedError)), errors[0])


def too_slow(url: str) -> ConnectionRefused:
    """There was no answer in time."""
    return ConnectionRefused(f"no answer from {url} within {OPEN_SECONDS:g} seconds")
