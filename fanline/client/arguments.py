"""What the arguments of `Client` stand for, in all of its forms."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fanline.client.machine.wire import V1Dialect
from fanline.client.message import Position, check_number, check_text, checked_position
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.channels import is_pattern
from fanline.protocol.compat.escapes import inbox_name
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.messages.commands import MAX_LAST, MAX_LINES, Subscribe

Codec = Literal["json", "cbor"]
StoredPositions = Mapping[str, Position | Sequence[Any]]
"""What `Subscription.positions` returned, or what JSON made of it."""
_DIALECTS: dict[str, V1Dialect] = {"json": JSON, "cbor": CBOR}


def dialect_of(codec: Codec) -> V1Dialect:
    """Raises ValueError."""
    if codec not in _DIALECTS:
        raise ValueError(f"codec is json or cbor, not {codec!r}")
    return _DIALECTS[codec]


def start_positions(
    channels: Sequence[str], last: int | None, *, start: bool, positions: StoredPositions | None
) -> dict[str, StartPosition]:
    """Where a subscription begins in each of its channels. Raises TypeError or ValueError."""
    if not channels:
        raise ValueError("subscribe to at least one channel")
    for each in channels:
        check_text("each channel of subscribe(*channels)", each)
    if start and last is not None:
        raise ValueError("give last or start, not both")
    if last is not None:
        check_number("last", last, 1, MAX_LAST)
    history = Subscribe(last=last, start=start) if start or last is not None else None
    starts = {each: StartPosition(history=None if is_pattern(each) else history) for each in channels}
    stored = {channel: StartPosition(checked_position(place)) for channel, place in (positions or {}).items()}
    return starts | {channel: stored[channel] for channel in channels if channel in stored}


def task_start(id: str, lines: int) -> dict[str, StartPosition]:  # noqa: A002  # the word of the protocol
    """Where the view of a task begins. Raises TypeError or ValueError."""
    check_number("lines", lines, 0, MAX_LINES)
    return {f"task:{id}": StartPosition(history=Subscribe(snapshot=True, lines=lines))}


def inbox_of(user: str | None, known: str | None) -> str:
    """The channel of the inbox of a user, by default of the one whom the server knows. Raises ValueError."""
    if not (name := user or known):
        raise ValueError("whose inbox? The server knows this client by no name; give `user`")
    return inbox_name(name)
