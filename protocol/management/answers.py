"""What workers answer. Times are ISO 8601 in UTC with milliseconds, as in the plain dialect.

Those that the management API passes on are data classes, which msgspec reads from the bus and FastAPI describes in the
OpenAPI: with their docstrings, for which `__pydantic_config__` asks.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

DOCUMENTED: dict[str, Any] = {"use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class ConnectionMetadata:
    """What its token, or the authenticator, says of the user of a connection."""

    __pydantic_config__: ClassVar = DOCUMENTED

    username: str | None = None
    role: str | None = None
    """The first of `roles`."""
    roles: list[str] = field(default_factory=list)
    organization_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ConnectionInfo:
    """One WebSocket connection."""

    __pydantic_config__: ClassVar = DOCUMENTED

    connection_id: str
    """The public id: `welcome.d.connection`, and `connection_id` of plain clients."""
    worker: str
    """The name of the worker that has it."""
    server: str
    """The worker's server: the name of the machine, and the process id of the supervisor."""
    user_id: str | None = None
    """null for a client without a user name."""
    session_id: str | None = None
    """The chat session in the path by which the client connected."""
    project_id: str | None = None
    """The project in the query with which the client connected."""
    connected_at: str
    last_ping: str | None = None
    """When the server last sent a ping."""
    last_pong: str | None = None
    """When the client last answered one."""
    is_alive: bool = True
    """False: it is about to be closed."""
    subscriptions: list[str] = field(default_factory=list)
    """Channels; in a list of connections the first hundred."""
    subscription_count: int = 0
    route: str = ""
    dialect: str = ""
    client_address: str = ""
    user_agent: str = ""
    queue_bytes: int = 0
    """What waits for this client, because it reads too slowly."""
    queue_messages: int = 0
    metadata: ConnectionMetadata = field(default_factory=ConnectionMetadata)


@dataclass(frozen=True, kw_only=True)
class StoredMessage:
    """A message of a durable channel, as it is stored."""

    __pydantic_config__: ClassVar = DOCUMENTED

    offset: int
    id: str | None = None
    event: str | None = None
    data: Any = None
    sender: str | None = None
    """The user who has published it; null for a backend."""
    time: str | None = None
    priority: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Extra attributes: `x` of the envelope."""


@dataclass(frozen=True, kw_only=True)
class PingResult:
    """How long one connection took to answer a ping."""

    __pydantic_config__: ClassVar = DOCUMENTED

    connection_id: str
    worker: str
    server: str
    seconds: float | None
    """null: it did not answer within two seconds."""


class ConnectionsPage(msgspec.Struct, frozen=True):
    """Some of the connections of one worker, by their ids."""

    items: list[ConnectionInfo]
    total: int
    """How many there are that match, whatever the page begins with."""
    more: bool


class CountedNames(msgspec.Struct, frozen=True):
    """Some names in their order, each with a number."""

    items: list[tuple[str, int]]
    total: int
    more: bool


class StrangersPage(msgspec.Struct, frozen=True):
    """Some running tasks of which there is no record yet, by their channels, each with what viewers get of it."""

    items: list[tuple[str, dict[str, Any]]]
    more: bool
    shares: list[int] = []
    """The shares of all tasks that the worker has, and whose tasks it knows."""


def server_name(host: str, supervisor: int) -> str:
    """The server with this supervisor, among all of a cluster."""
    return f"{host}/{supervisor}"
