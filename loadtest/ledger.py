"""Which messages a viewer must have received: every publisher numbers its messages on a channel 0, 1, 2, ..."""

from collections.abc import Mapping


class Ledger:
    """What one subscription has received from each publisher.

    `published` maps each publisher of this process to the number of messages that it had sent on the channel when the
    subscription was answered: all later ones must come. A publisher of another process counts from the first message
    that comes.
    """

    def __init__(self, published: Mapping[str, int]) -> None:
        self._floor = dict(published)
        self._next: dict[str, int] = {}

    def note(self, publisher: str, sequence: int, *, local: bool) -> int:
        """How many messages are missing just before this one; -1 if it came twice or out of order."""
        expected = self._next.get(publisher)
        if expected is None:
            expected = min(sequence, self._floor.get(publisher, 0)) if local else sequence
        if sequence < expected:
            return -1
        self._next[publisher] = sequence + 1
        return sequence - expected

    def missing(self, published: Mapping[str, int]) -> int:
        """How many messages have not come yet. `published`: publisher of this process -> messages sent in all."""
        return sum(
            max(0, count - self._next.get(publisher, self._floor.get(publisher, 0)))
            for publisher, count in published.items()
        )
