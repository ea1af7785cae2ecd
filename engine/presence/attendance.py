"""The attendance of one worker: which users its connections have brought to which channel. Without I/O.

A user is on a channel from the first of its connections to LINGER_SECONDS after the last one was lost, so that a page
that is loaded again, or a phone in a tunnel, is not news. A user who unsubscribes is gone at once.
"""

from collections import deque
from collections.abc import Iterable

from fanline.engine.presence.delta import PresenceDelta, digest

LINGER_SECONDS = 5.0
"""For how long a user whose connection was lost may come back unnoticed."""
SMALL_AGAIN = 0.8
"""A large channel is small again below this part of the limit, so that it does not change its form all the time."""


class _Attendee:
    """One user on one channel."""

    __slots__ = ("connections", "until", "username")

    def __init__(self, username: str | None) -> None:
        self.connections = 0
        self.username = username
        self.until: float | None = None
        """When the user is gone, if no connection comes back before."""


class AttendedChannel:
    """A channel with at least one connection, or a user who may be back soon."""

    __slots__ = ("anonymous", "changed", "connections", "large", "number", "users")

    def __init__(self) -> None:
        self.users: dict[str, _Attendee] = {}
        self.connections = 0
        self.anonymous = 0
        self.changed: dict[str, None] = {}
        """Users about whom the next delta says something."""
        self.number = 0
        """Of its last delta; 0 before the first."""
        self.large = False

    @property
    def empty(self) -> bool:
        return not self.users and not self.connections


class Attendance:
    """Of one worker, which is known to the others by the id `worker`. `limit`: users from which on a channel is large.

    Times are in seconds of any one clock.
    """

    def __init__(self, worker: str, limit: int) -> None:
        self._worker = worker
        self._limit = limit
        self._channels: dict[str, AttendedChannel] = {}
        self._dirty: dict[str, None] = {}
        self._agenda: deque[tuple[float, str, str]] = deque()  # (when, channel, user), the next one first
        self._number = 0

    # --- connections ---------------------------------------------------------------------------------------------

    def enter(self, name: str, user: str | None, username: str | None) -> None:
        """A connection has joined a channel; `user`: None for a client without a user name."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = AttendedChannel()
        channel.connections += 1
        if user is None:
            channel.anonymous += 1
        else:
            attendee = channel.users.get(user)
            if attendee is None:
                attendee = channel.users[user] = _Attendee(username)
            attendee.connections += 1
            attendee.username = username
            attendee.until = None
            channel.changed[user] = None
        self._dirty[name] = None

    def leave(self, name: str, user: str | None) -> None:
        """A connection has left a channel of its own will."""
        self._subtract(name, user, None)

    def lose(self, name: str, user: str | None, now: float) -> None:
        """A connection has ended: its user may be back soon."""
        self._subtract(name, user, now + LINGER_SECONDS)

    def _subtract(self, name: str, user: str | None, until: float | None) -> None:
        channel = self._channels[name]
        channel.connections -= 1
        if user is None:
            channel.anonymous -= 1
        else:
            attendee = channel.users[user]
            attendee.connections -= 1
            if not attendee.connections and until is None:
                del channel.users[user]
            elif not attendee.connections and until is not None:
                attendee.until = until
                self._agenda.append((until, name, user))
            channel.changed[user] = None
        self._dirty[name] = None

    @property
    def next_expiry(self) -> float:
        """When `expire` has something to do."""
        return self._agenda[0][0] if self._agenda else float("inf")

    def expire(self, now: float) -> None:
        """Users who have not come back in time are gone."""
        while self._agenda and self._agenda[0][0] <= now:
            until, name, user = self._agenda.popleft()
            channel = self._channels.get(name)
            attendee = None if channel is None else channel.users.get(user)
            if channel is not None and attendee is not None and attendee.until == until:
                del channel.users[user]
                channel.changed[user] = None
                self._dirty[name] = None

    # --- what the other workers are sent -------------------------------------------------------------------------

    @property
    def dirty(self) -> Iterable[str]:
        """The channels with changes to report."""
        return list(self._dirty)

    def numbers(self, names: Iterable[str]) -> list[int]:
        """The number of the last delta of each channel; 0 for a channel that no one has joined."""
        return [0 if (channel := self._channels.get(name)) is None else channel.number for name in names]

    def take(self, name: str) -> PresenceDelta | None:
        """The next delta of a channel; None if there is nothing to tell."""
        if name not in self._dirty:
            return None
        del self._dirty[name]
        channel = self._channels[name]
        if channel.empty:  # reported even if no delta has named a user: a snapshot may have
            del self._channels[name]
        previous = channel.number
        turned = self._turn(channel)
        changed, channel.changed = list(channel.users) if turned else list(channel.changed), {}
        self._number += 1
        channel.number = self._number
        return self._delta(channel, 0 if turned else previous, changed)

    def snapshot(self, name: str) -> PresenceDelta:
        """Everyone who is on a channel now, including the changes of the next delta."""
        channel = self._channels.get(name) or AttendedChannel()
        return self._delta(channel, 0, list(channel.users))

    def _turn(self, channel: AttendedChannel) -> bool:
        """Whether the channel has become large, or small again: then everything is sent again, in the other form."""
        large = len(channel.users) > self._limit * (SMALL_AGAIN if channel.large else 1)
        turned, channel.large = large is not channel.large, large
        return turned

    def _delta(self, channel: AttendedChannel, previous: int, changed: Iterable[str]) -> PresenceDelta:
        here = [user for user in changed if user in channel.users]
        gone = [user for user in changed if user not in channel.users]
        common = (self._worker, self._number, previous, channel.connections, channel.anonymous)
        if channel.large:
            came = b"".join(map(digest, here))
            return PresenceDelta(*common, large=True, came_digests=came, gone_digests=b"".join(map(digest, gone)))
        users = {user: (channel.users[user].connections, channel.users[user].username) for user in here}
        return PresenceDelta(*common, users, tuple(gone))
