"""The `sub` commands that are under way on a connection, over all channels."""

import itertools
from typing import TYPE_CHECKING, NamedTuple

from fanline.client.subscriptions.cursor import Cursor
from fanline.protocol.envelope import Envelope, MessageType

if TYPE_CHECKING:
    from fanline.client.subscriptions.client_channel import ClientChannel


class SubRequest(NamedTuple):
    """What one `sub` asks for."""

    offset: int | None = None
    epoch: str | None = None
    cursor: Cursor | None = None
    """Whose start position it is; None: all that have a place go on from there."""
    attempt: int = 0
    """It asks for messages that did not come, for the first or another time; 0: it does not."""

    def command(self, channel: str, id: str) -> Envelope:  # noqa: A002  # the word of the protocol
        history = None if self.cursor is None else self.cursor.start.history
        data = None if history is None else history.fields()
        return Envelope(MessageType.SUB, channel=channel, id=id, offset=self.offset, epoch=self.epoch, data=data)


class SubRequests:
    """Which channel waits for which answer. The ids are none that a program would give to a message."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[str, ClientChannel] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, channel: "ClientChannel") -> str:
        """The id for a `sub` of this channel."""
        request = f"~{next(self._numbers)}"
        self._waiting[request] = channel
        return request

    def pop(self, request: str | None) -> "ClientChannel | None":
        """The channel that an answer is for."""
        return self._waiting.pop(request or "", None)

    def drop(self, channel: "ClientChannel") -> None:
        """The channel no longer wants an answer."""
        self._waiting = {request: each for request, each in self._waiting.items() if each is not channel}

    def clear(self) -> None:
        """No more answers will come."""
        self._waiting.clear()
