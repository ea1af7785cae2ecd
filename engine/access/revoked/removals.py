"""Users who have lost their place on a channel: those that one worker knows of, in order."""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from fanline.protocol.auth.revocation import Removal

_REMEMBERED = 4096

RemovalsByUser = Mapping[str, Sequence[Removal]]
"""User -> removals of this user."""


class Removals:
    """`mark` and `since` tell what has arrived while something was under way; `take_new` what is still to be done."""

    def __init__(self) -> None:
        self._count = 0
        self._newest: deque[Removal] = deque(maxlen=_REMEMBERED)
        self._undone = defaultdict[str, list[Removal]](list)

    def add(self, removal: Removal) -> None:
        self._count += 1
        self._newest.append(removal)
        self._undone[removal.user].append(removal)

    def take_new(self) -> RemovalsByUser:
        """Those that have arrived since the last call."""
        new, self._undone = self._undone, defaultdict(list)
        return new

    def mark(self) -> int:
        """For `since`."""
        return self._count

    def since(self, mark: int, user: str | None, channel: str) -> Removal | None:
        """The removal of the user from the channel that has arrived since a mark, if there is one."""
        count = self._count - mark
        if user is None or not count:
            return None
        if count > len(self._newest):
            return Removal(user=user, channel=channel)  # it may be among those that are not remembered
        newest = (self._newest[-number] for number in range(1, count + 1))
        return next((each for each in newest if each.user == user and each.covers(channel)), None)
