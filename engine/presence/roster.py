"""The roster of a channel: who is on it, over all workers, as one worker puts it together. Without I/O.

The reports of each worker are kept apart, so that the end of a worker removes its own users and no others. A user is on
the channel while at least one worker reports so. Deltas may be late, repeated or lost: an older delta changes nothing,
and after a lost one `take` asks for a snapshot.
"""

from collections.abc import Iterator
from typing import NamedTuple

from fanline.engine.presence.delta import PresenceDelta, digest, split_digests
from fanline.protocol.messages.answers import PresentUser


class PresenceChange(NamedTuple):
    """A user has joined a channel, or left it."""

    user: PresentUser
    came: bool


class _Part:
    """What one worker has said."""

    __slots__ = ("anonymous", "connections", "large", "number", "users")

    def __init__(self, number: int) -> None:
        self.number = number
        self.users: dict[bytes, PresentUser | None] = {}
        """Digest of the user's name -> the user; None in a large channel, whose users are reported as digests only."""
        self.connections = 0
        self.anonymous = 0
        self.large = False


class Roster:
    """Of one channel. `changes`: of which the viewers have not been notified yet."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._holders: dict[bytes, int] = {}  # digest -> how many workers have the user
        self._changed: dict[bytes, tuple[bool, PresentUser | None]] = {}  # whether the user was here before, and who

    # --- what workers say ----------------------------------------------------------------------------------------

    def take(self, delta: PresenceDelta) -> bool:
        """Take a worker's delta. False: an earlier one is missing, and a snapshot of that worker is needed."""
        part = self._parts.get(delta.worker)
        known = 0 if part is None else part.number
        if part is not None and delta.number <= known:
            return True  # late: what is known is newer
        if delta.previous > known:
            return False
        if part is None:
            part = self._parts[delta.worker] = _Part(delta.number)
        self._apply(part, delta)
        return True

    def drop(self, worker: str) -> None:
        """A worker has ended, and its connections with it."""
        part = self._parts.pop(worker, None)
        if part is not None:
            for key in list(part.users):
                self._remove(part, key)

    def _apply(self, part: _Part, delta: PresenceDelta) -> None:
        came: dict[bytes, PresentUser | None]
        if delta.large:
            came, gone = dict.fromkeys(split_digests(delta.came_digests)), split_digests(delta.gone_digests)
        else:
            users = delta.users.items()
            came = {digest(user): PresentUser(user, username, connections) for user, (connections, username) in users}
            gone = [digest(user) for user in delta.gone]
        if not delta.previous:
            gone = [key for key in part.users if key not in came]
        for key, user in came.items():
            self._set(part, key, user)
        for key in gone:
            self._remove(part, key)
        part.number, part.large = delta.number, delta.large
        part.connections, part.anonymous = delta.connections, delta.anonymous

    def _set(self, part: _Part, key: bytes, user: PresentUser | None) -> None:
        if key not in part.users:
            holders = self._holders.get(key, 0)
            if not holders:
                self._note(key, user, was_here=False)
            self._holders[key] = holders + 1
        part.users[key] = user

    def _remove(self, part: _Part, key: bytes) -> None:
        if key not in part.users:
            return
        user = part.users.pop(key)
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._note(key, user, was_here=True)

    def _note(self, key: bytes, user: PresentUser | None, *, was_here: bool) -> None:
        first, earlier = self._changed.get(key, (was_here, None))
        self._changed[key] = (first, user or earlier)

    # --- what is known -------------------------------------------------------------------------------------------

    @property
    def workers(self) -> list[str]:
        """The workers that have said something."""
        return list(self._parts)

    def number_of(self, worker: str) -> int:
        """Up to which of its deltas a worker's part is known; 0 for none."""
        part = self._parts.get(worker)
        return 0 if part is None else part.number

    def has_users_of(self, worker: str) -> bool:
        """Whether a worker has said that it has a connection, or a user, on the channel."""
        part = self._parts.get(worker)
        return part is not None and bool(part.users or part.connections)

    @property
    def large(self) -> bool:
        """Whether not all users are known by name."""
        return any(part.large for part in self._parts.values())

    @property
    def count(self) -> int:
        """How many users are on the channel."""
        return len(self._holders)

    @property
    def connections(self) -> int:
        return sum(part.connections for part in self._parts.values())

    @property
    def anonymous(self) -> int:
        """Connections without a user name."""
        return sum(part.anonymous for part in self._parts.values())

    def users(self) -> Iterator[PresentUser]:
        """All who are known by name, each with its connections to all workers together."""
        merged: dict[bytes, PresentUser] = {}
        for part in self._parts.values():
            for key, user in part.users.items():
                if user is not None:
                    before = merged.get(key)
                    connections = user.connections + (0 if before is None else before.connections)
                    name = user.username or (None if before is None else before.username)
                    merged[key] = PresentUser(user.user_id, name, connections)
        return iter(merged.values())

    # --- what has changed ----------------------------------------------------------------------------------------

    def changes(self) -> list[PresenceChange]:
        """Who has joined and left since the last call, without users that are not known by name."""
        changed, self._changed = self._changed, {}
        return [
            PresenceChange(user, not was_here)
            for key, (was_here, user) in changed.items()
            if user is not None and was_here is not (key in self._holders)
        ]
