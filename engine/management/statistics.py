"""A worker's counts, and the data for counting users and channels over all workers."""

from collections.abc import Callable, Iterable

import msgspec
import trio

from fanline.engine.cluster.members import Members
from fanline.engine.connections.registry import Registry
from fanline.engine.counters import Counters
from fanline.engine.presence.delta import digest
from fanline.engine.presence.online import OnlineUsers
from fanline.engine.slices import Slices, lowest, pieces
from fanline.protocol.channels import is_pattern, namespace_of

MOST_DIGESTS = 8192
"""That a worker tells of its users, and of its channels: with more, the numbers are about 1 % off."""
LOOK_SECONDS = 0.002
"""How long a look at many connections or channels may hold the loop at a time: it is less urgent than a message."""
_REST = 50
"""Times that what counting them has taken, users and channels are not counted again."""
CHUNK = 200
"""Connections, or names, between two looks at the clock."""


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


class StatisticsTaker:
    """Of one worker. `channels`: the names of those that have subscribers, patterns among them."""

    def __init__(
        self, members: Members, registry: Registry, counters: Counters, channels: Callable[[], Iterable[str]]
    ) -> None:
        self._members = members
        self._registry = registry
        self._counters = counters
        self._channels = channels
        self._last: WorkerStatistics | None = None
        self._stale_at = 0.0

    async def take(self, *, fresh: bool = True) -> WorkerStatistics:
        """As it is now; slice by slice, where there are many connections. Unless it is to be `fresh`, users and
        channels may be those of a little while ago, so that they take a fiftieth of the time at most.
        """
        last, begun = self._last, trio.current_time()
        if last is None or fresh or begun >= self._stale_at:
            last = self._last = await self._count()
            now = trio.current_time()
            self._stale_at = now + _REST * (now - begun)
        connections = msgspec.structs.replace(last.users, connections=self._counters.connections)
        return msgspec.structs.replace(last, users=connections if not fresh else last.users)

    async def _count(self) -> WorkerStatistics:
        slices, users, channels, sessions = Slices(LOOK_SECONDS), set[str](), list[str](), set[str]()
        for names in pieces(self._channels(), CHUNK):
            channels += [name for name in names if not is_pattern(name)]
            sessions |= {name for name in names if namespace_of(name) == "session"}
            await slices.breathe()
        connections = anonymous = in_sessions = 0
        for piece in pieces(self._registry, CHUNK):
            known = [user for each in piece if (user := each.session.identity.user) is not None]
            connections, anonymous = connections + len(piece), anonymous + len(piece) - len(known)
            users.update(known)
            if sessions:
                in_sessions += sum(not sessions.isdisjoint(each.session.subscriptions or ()) for each in piece)
            await slices.breathe()
        own = self._members.own
        return WorkerStatistics(
            name=own.name,
            host=own.host,
            pid=own.pid,
            server=own.server,
            started=own.started,
            counters=self._counters,
            users=await _sampled(connections, anonymous, users, slices),
            session_connections=in_sessions,
            channels=await _sampled(len(channels), 0, channels, slices),
            sessions=await _sampled(len(sessions), 0, sessions, slices),
        )


async def _sampled(connections: int, anonymous: int, names: Iterable[str], slices: Slices) -> OnlineUsers:
    """As in `sample`; `names` are all different."""
    digests, count = list[bytes](), 0
    for piece in pieces(names, CHUNK):
        count += len(piece)
        digests = lowest(digests, map(digest, piece), MOST_DIGESTS)
        await slices.breathe()
    return OnlineUsers(connections, anonymous, b"".join(digests), complete=count <= MOST_DIGESTS)
