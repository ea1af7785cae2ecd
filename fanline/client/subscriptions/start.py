"""The start position: where in a channel a subscription begins."""

from typing import NamedTuple

from fanline.client.message import Position
from fanline.protocol.messages.commands import Subscribe


class StartPosition(NamedTuple):
    """Where in a channel a subscription begins; by default with the messages published from now on."""

    position: Position | None = None
    """Right after this position."""
    history: Subscribe | None = None
    """With this part of what is stored."""

    @property
    def snapshot(self) -> bool:
        """Whether it begins with the snapshot of a task, and is sent another one after each gap."""
        return self.history is not None and self.history.snapshot
