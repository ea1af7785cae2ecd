"""What viewers of a channel are sent about its presence: each join and leave, or only the counts of a large channel.

Without I/O.
"""

import msgspec
from msgspec import Raw

from fanline.engine.presence.attendance import SMALL_AGAIN
from fanline.engine.presence.roster import PresenceChange, Roster
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import PresenceData, PresentUser

COUNT_SECONDS = 1.0
"""At least between two messages with the counts of a large channel."""


class PresenceNews:
    """Of one channel. `limit`: users above which the channel is large."""

    def __init__(self, channel: str, roster: Roster, limit: int) -> None:
        self._channel = channel
        self._roster = roster
        self._limit = limit
        self._large = False
        self._due = 0.0  # when counts may be sent again
        self._told: tuple[int, ...] = ()  # the counts that were sent last
        self._data: Raw | None = None

    def data(self) -> Raw:
        """Who is on the channel, as the answer to a query; encoded once for all who ask until something changes."""
        if self._data is None:
            users = None if self._large else list(self._roster.users())
            data = PresenceData(*self._counts(), users)
            self._data = Raw(msgspec.json.encode(data.fields()))
        return self._data

    def take(self, time_ms: int, now: float) -> list[Envelope]:
        """The notices that viewers must get now. To be called after each change, and when time has passed; `now` in
        seconds of any one clock.
        """
        self._data = None
        changes, was_large = self._roster.changes(), self._large
        self._large = self._is_large()
        if self._large and not was_large:
            self._due, self._told = now, ()
        if self._large:
            return self._count(time_ms, now)
        if was_large:
            return [self._summary(time_ms)]  # users may have joined and left meanwhile
        return [self._notice(change, time_ms) for change in changes]

    def _is_large(self) -> bool:
        return self._roster.large or self._roster.count > self._limit * (SMALL_AGAIN if self._large else 1)

    def _count(self, time_ms: int, now: float) -> list[Envelope]:
        if now < self._due or self._told == self._counts():
            return []
        self._due, self._told = now + COUNT_SECONDS, self._counts()
        return [self._summary(time_ms)]

    def _counts(self) -> tuple[int, int, int]:
        return self._roster.count, self._roster.connections, self._roster.anonymous

    def _summary(self, time_ms: int) -> Envelope:
        return Envelope(MessageType.PRESENCE, channel=self._channel, data=self.data(), time=time_ms)

    def _notice(self, change: PresenceChange, time_ms: int) -> Envelope:
        kind = MessageType.JOIN if change.came else MessageType.LEAVE
        data = PresentUser(change.user.user_id, change.user.username).fields()
        return Envelope(kind, channel=self._channel, sender=change.user.user_id, data=data, time=time_ms)
