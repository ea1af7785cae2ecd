"""Routes: what is served at which path of the WebSocket endpoint, as the settings say it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.auth.rights import GrantText
from fanline.protocol.management.monitor import MONITOR, SYSTEM

TEMPLATE = "channels like task:{task_id} or user:{user}"
TemplateText = Annotated[str, Meta(min_length=3, max_length=200, description=TEMPLATE)]


class Serves(StrEnum):
    """What a route is for."""

    CHANNELS = "channels"
    HEALTH = "health"  # answers pings, for those who want to know whether the server is there
    ECHO = "echo"  # sends back whatever is sent


class Overflow(StrEnum):
    """What happens to a connection over the limit of its user."""

    REJECT = "reject"
    REPLACE_OLDEST = "replace_oldest"


class Acknowledge(StrEnum):
    """What counts as an acknowledgement of a plain client. In both cases its first `ack` makes it explicit."""

    AUTO = "auto"  # the pong to a ping behind the message
    EXPLICIT = "explicit"  # its `ack`


class Speech(StrEnum):
    """Which dialects a route accepts."""

    ANY = "any"
    PLAIN = "plain"
    V1 = "v1"


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of one route. Those from `joins` on are for routes that serve channels."""

    enabled: bool = True
    """False: answered with 404."""
    serves: Serves = Serves.CHANNELS
    dialect: Speech = Speech.ANY
    idle: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """A connection without any input for these seconds is closed (4009); 0: `engine.idle_timeout`."""
    greeting: Annotated[str, Meta(max_length=500)] = ""
    """The text of the first message to plain clients, with names of the path; empty: `connection_established`."""
    anonymous: tuple[GrantText, ...] = ()
    """What clients without a token may do here; empty: what `access.anonymous` says."""
    per_user: Annotated[int, Meta(ge=-1, le=1_000_000)] = -1
    """The most connections of one user to this route in the whole cluster; 0: any number; -1: `access.connections`."""
    counted_as: Annotated[str, Meta(max_length=64)] = ""
    """Routes with the same name here count a user's connections together; empty: each route by itself."""
    replace: Overflow = Overflow.REJECT
    joins: tuple[TemplateText, ...] = ()
    """Channels, and whole namespaces, that a connection is subscribed to from the beginning."""
    ack: Acknowledge = Acknowledge.AUTO
    """How plain clients acknowledge the messages of an inbox."""
    rooms: Annotated[str, Meta(min_length=1, max_length=32)] = "project"
    """The namespace of channels that plain clients name without one."""
    manages: bool = False
    """Whether it is for operators: they watch the server, and make the calls of the management API here."""
    flat: bool = False
    """Whether plain clients get the progress of tasks at the top level of a message."""
    must_exist: bool = False
    """Whether a task that is joined has to be known already; otherwise it is waited for."""


_WS = Route(joins=("user:{user}", "project:{?project_id}"))
_CHAT = Route(idle=60.0, per_user=5, counted_as="chat", joins=("user:{user}",), rooms="session")
_TASK = Route(joins=("task:{task_id}",), flat=True, greeting="connected to the progress of task {task_id}")
DEFAULTS: Mapping[str, Route] = {
    "/": _WS,
    "/ws": _WS,
    "/ws/admin/monitor": Route(joins=(MONITOR, SYSTEM), manages=True),
    "/ws/board": Route(joins=("project:{?project_id=*}",)),
    "/ws/chat": _CHAT,
    "/ws/chat/session/{session_id}": msgspec.structs.replace(_CHAT, joins=("user:{user}", "session:{session_id}")),
    "/ws/health": Route(serves=Serves.HEALTH, dialect=Speech.PLAIN, greeting="the server is there"),
    "/ws/review/{task_id}": _TASK,
    "/ws/task/{task_id}": _TASK,
    "/ws/test/{client_id}": Route(serves=Serves.ECHO, dialect=Speech.PLAIN, greeting="connected as {client_id}"),
}
