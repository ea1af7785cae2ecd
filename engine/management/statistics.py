"""What a worker has counted, with what is needed to count users and channels over all workers."""

import os
import socket
from collections.abc import Callable, Iterable

import msgspec

from fanline.engine.cluster.members import Members
from fanline.engine.connections.registry import Registry
from fanline.engine.counters import Counters
from fanline.engine.presence.delta import digest
from fanline.engine.presence.online import OnlineUsers, sample
from fanline.engine.slices import Slices
from fanline.protocol.channels import namespace_of
from fanline.protocol.management.answers import server_name

MOST_DIGESTS = 8192
"""That a worker tells of its users, and of its channels: with more, the numbers are about 1 % off."""
_CHUNK = 500  # between two looks at the clock


class WorkerStatistics(msgspec.Struct, frozen=True):
    """The answer, as JSON."""

    name: str
    host: str
    pid: int
    server: str
    started: int
    """Unix ms."""
    counters: Counters
    users: OnlineUsers
    session_connections: int
    """Connections that are subscribed to a channel of the namespace `session`."""
    channels: OnlineUsers
    """Its channels instead of users, without patterns, ..."""
    sessions: OnlineUsers
    """... and those of the namespace `session`."""


_statistics = msgspec.json.Decoder(WorkerStatistics)
decode_statistics = _statistics.decode


class StatisticsTaker:
    """Of one worker. `channels`: the names of those that have subscribers."""

    def __init__(
        self, members: Members, registry: Registry, counters: Counters, channels: Callable[[], Iterable[str]]
    ) -> None:
        self._members = members
        self._registry = registry
        self._counters = counters
        self._channels = channels
        self.server = server_name(socket.gethostname(), os.getppid())

    async def take(self) -> WorkerStatistics:
        """As it is now; slice by slice, where there are many connections."""
        slices, users = Slices(), set[bytes]()
        connections = anonymous = in_sessions = 0
        for connection in self._registry:
            connections += 1
            user = connection.session.identity.user
            if user is None:
                anonymous += 1
            else:
                users.add(digest(user))
            in_sessions += any(namespace_of(each) == "session" for each in connection.session.subscriptions or ())
            if connections % _CHUNK == 0:
                await slices.breathe()
        channels, sessions = set[bytes](), set[bytes]()
        for number, name in enumerate(self._channels()):
            channels.add(digest(name))
            if namespace_of(name) == "session":
                sessions.add(digest(name))
            if number % _CHUNK == 0:
                await slices.breathe()
        own = self._members.live()[self._members.id]
        return WorkerStatistics(
            name=own.name,
            host=own.host,
            pid=own.pid,
            server=self.server,
            started=own.started,
            counters=self._counters,
            users=sample(connections, anonymous, users, MOST_DIGESTS),
            session_connections=in_sessions,
            channels=sample(len(channels), 0, channels, MOST_DIGESTS),
            sessions=sample(len(sessions), 0, sessions, MOST_DIGESTS),
        )
