"""What the state machine asks its shell to do. The shell performs the effects in order and decides nothing."""

from typing import NamedTuple

from fanline.client.message import Gap, Message, Position
from fanline.client.subscriptions.cursor import Cursor
from fanline.errors import FanlineError
from fanline.protocol.envelope import Envelope


class Send(NamedTuple):
    """Send a `sub` or `unsub`. If it cannot be sent, report that with `ClientSubscriptions.refuse`."""

    command: Envelope


class Begin(NamedTuple):
    """A local subscription has begun in this channel."""

    cursor: Cursor
    position: Position | None
    """Where; None on an ephemeral channel, and if only the first message of its history says so."""


class Deliver(NamedTuple):
    """Hand a message or a gap to a local subscription."""

    cursor: Cursor
    item: Message | Gap


class End(NamedTuple):
    """End a local subscription with an error. One that has not begun yet raises it on entering."""

    cursor: Cursor
    error: FanlineError


class AskAgain(NamedTuple):
    """Call `ClientSubscriptions.ask_again` for this channel at time `at`, unless the connection ends before."""

    channel: str
    at: float


class Resumed(NamedTuple):
    """Every channel has been answered on this connection; other commands may follow."""


Effect = Deliver | Send | Begin | End | AskAgain | Resumed
