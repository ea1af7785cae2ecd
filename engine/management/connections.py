"""Descriptions of a worker's connections, for operators."""

from datetime import UTC, datetime

import trio

from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Member
from fanline.engine.connections.connection import Connection
from fanline.engine.connections.registry import Registry
from fanline.engine.management.statistics import CHUNK, LOOK_SECONDS
from fanline.engine.sessions.connection_ids import PROCESS, number_of
from fanline.engine.slices import Slices, lowest, pieces
from fanline.protocol.management.answers import ConnectionInfo, ConnectionMetadata, ConnectionsPage
from fanline.protocol.management.questions import ConnectionsQuestion

_SUBSCRIPTIONS_IN_LISTS = 100
_PAGE_BYTES = 512 * 1024  # about, of names of channels in one answer: NATS takes 1 MiB


class ConnectionLister:
    """Of one worker, `own`."""

    def __init__(self, registry: Registry, own: Member) -> None:
        self._registry = registry
        self._own = own

    def one(self, connection_id: str) -> ConnectionInfo | None:
        """A connection with all its subscriptions; None if it is not open on this worker."""
        connection = self._registry.get(connection_id)
        return None if connection is None else self._describe(connection)

    async def page(self, asked: ConnectionsQuestion) -> ConnectionsPage:
        """The next connections that match, in the order of their ids."""
        slices, first, total, following = Slices(LOOK_SECONDS), list[tuple[int, Connection]](), 0, 0
        behind = _behind(asked.after)
        for piece in pieces(self._registry, CHUNK):
            matching = [(each.session.number, each) for each in piece if _matches(each, asked)]
            new = [each for each in matching if each[0] > behind]
            total, following = total + len(matching), following + len(new)
            first = lowest(first, new, asked.limit)
            await slices.breathe()
        items, size = list[ConnectionInfo](), 0
        for _, connection in first:
            info = self._describe(connection, _SUBSCRIPTIONS_IN_LISTS)
            size += sum(map(len, info.subscriptions))
            if items and size > _PAGE_BYTES:
                break
            items.append(info)
            await slices.breathe()
        return ConnectionsPage(items, total, more=len(items) < following)

    def _describe(self, connection: Connection, most: int | None = None) -> ConnectionInfo:
        session, outbox = connection.session, connection.outbox
        identity, values = session.identity, session.visit.values
        names = list(session.subscriptions or ())
        pinged = self._registry.pinged(connection)
        connected = session.origin.connected
        return ConnectionInfo(
            connection_id=session.connection,
            worker=self._own.name,
            server=self._own.server,
            user_id=identity.user,
            session_id=values.get("session_id"),
            project_id=values.get("?project_id"),
            connected_at=time_text(connected),
            last_ping=_text_since(pinged, connected),
            last_pong=_text_since(session.ponged, connected),
            is_alive=outbox.life.is_open,
            subscriptions=names[:most],
            subscription_count=len(names),
            route=session.route.pattern,
            dialect=session.encoding.dialect.name,
            client_address=session.origin.address,
            user_agent=session.origin.user_agent,
            queue_bytes=outbox.backlog_bytes,
            queue_messages=outbox.backlog_messages,
            metadata=ConnectionMetadata(
                username=identity.username,
                role=identity.roles[0] if identity.roles else None,
                roles=list(identity.roles),
                organization_id=identity.organization_id,
            ),
        )


def time_text(ms: float) -> str:
    """Unix milliseconds as text."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_since(at: float, connected: int) -> str | None:
    """A time of Trio's clock; None if it is before the connection was opened."""
    ms = unix_ms() - (trio.current_time() - at) * 1000
    return time_text(ms) if at and ms >= connected else None


def _matches(connection: Connection, asked: ConnectionsQuestion) -> bool:
    session = connection.session
    return (
        asked.user in (None, session.identity.user)
        and asked.route in (None, session.route.pattern)
        and (asked.channel is None or asked.channel in (session.subscriptions or ()))
    )


def _behind(after: str) -> float:
    """The number behind which this process's connections come; infinity if all come before that id."""
    number = number_of(after)
    if number is not None:
        return number
    return -1 if after.partition("-")[0] < PROCESS else float("inf")
