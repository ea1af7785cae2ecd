"""Namespaces: what is promised for all channels of one kind. `task:42` is a channel of the namespace `task`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.channels import namespace_of

_DAY = 86_400.0


class Storage(StrEnum):
    FILE = "file"
    MEMORY = "memory"


class SlowPolicy(StrEnum):
    """What happens to a subscriber that does not keep up."""

    RESUME = "resume"  # closed with 4008; it comes back with its offset, and nothing is lost
    CONFLATE = "conflate"  # only the newest message of each sender and event is kept; otherwise like `resume`
    DROP = "drop"  # messages are left out, counted, and reported by a `gap`; ephemeral namespaces only


class Publishers(StrEnum):
    """Who may publish through a WebSocket. Producers on NATS always may, within their permissions there."""

    EVERYONE = "everyone"
    BACKEND = "backend"


class Namespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The promises of one namespace. The fields from `history` to `replicas` matter only if it is durable."""

    durable: bool = False
    """Stored in a JetStream stream, and delivered at least once to a client that resumes. Otherwise at most once."""
    history: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Messages kept per channel."""
    max_age: Annotated[float, Meta(ge=0.1)] = _DAY
    """Seconds for which a message is kept."""
    max_bytes: Annotated[int, Meta(ge=-1)] = 1 << 30
    """Bytes kept for the whole namespace; -1 for no limit of its own."""
    storage: Storage = Storage.FILE
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """Copies in a NATS cluster; the embedded server allows only one."""
    slow: SlowPolicy = SlowPolicy.RESUME
    priority: Annotated[int, Meta(ge=-1, le=9)] = -1
    """That of messages which say none; -1: they have none."""
    ttl: Annotated[int, Meta(ge=0, le=2**31)] = 0
    """Seconds after which messages expire that do not say so themselves; 0: they do not."""
    publish: Publishers = Publishers.EVERYONE
    authorizer: str = ""
    """The handler that alone decides about rights on its channels; empty: what tokens, roles and settings grant."""
    inbox: bool = False
    """Each channel is a user's inbox: a `sub` without a start position gets what is not acknowledged yet."""
    everywhere: bool = False
    """Every worker receives all its channels, so that an urgent message (sending/batch.py) reaches every connection."""
    tasks: bool = False
    """Its channels are tasks, with snapshots, log tails, stall detection and calls (docs/reference/tasks.md)."""
    retention: Annotated[float, Meta(ge=1, le=31_536_000)] = 7 * _DAY
    """Seconds for which a task's snapshot is kept after its last change."""
    stalled_timeout: Annotated[float, Meta(ge=0, le=31_536_000)] = _DAY
    """Seconds after which a stalled task is ended as timed out; 0: never."""
    presence: bool = False
    """Whether clients can learn which users are subscribed to a channel, and who comes and goes."""


ROOMS = ("project", "session")
"""The namespaces of channels that clients come to, talk in and leave."""
_ROOM = Namespace(durable=True, presence=True)
DEFAULTS: Mapping[str, Namespace] = {
    "task": Namespace(durable=True, history=5000, tasks=True),
    "tasks": Namespace(durable=True, history=1, publish=Publishers.BACKEND),  # the task monitor's table
    "project": _ROOM,
    "user": Namespace(durable=True, max_age=7 * _DAY, inbox=True),
    "session": _ROOM,
    "monitor": Namespace(publish=Publishers.BACKEND, slow=SlowPolicy.DROP),  # what admins watch
    "system": Namespace(durable=True, publish=Publishers.BACKEND, everywhere=True),
    "doc": Namespace(durable=True),
    "typing": Namespace(slow=SlowPolicy.DROP),
    "cursor": Namespace(slow=SlowPolicy.DROP),
    "presence": Namespace(slow=SlowPolicy.DROP),
}
UNKNOWN = Namespace()
"""A namespace that is not declared: ephemeral, and every client may publish to it."""


class Namespaces:
    """The default namespaces, and those that the settings declare in addition or in their place."""

    def __init__(self, declared: Mapping[str, Namespace] | None = None) -> None:
        self._by_name = {**DEFAULTS, **(declared or {})}

    def of(self, channel: str) -> Namespace:
        """The namespace of a channel."""
        return self._by_name.get(namespace_of(channel), UNKNOWN)

    def is_declared(self, channel: str) -> bool:
        """Whether a channel's namespace is a default one, or one of the settings."""
        return namespace_of(channel) in self._by_name

    def names(self) -> list[str]:
        """Of all that are declared."""
        return list(self._by_name)

    def everywhere(self) -> list[str]:
        """The names of the namespaces that every worker receives."""
        return [name for name, namespace in self._by_name.items() if namespace.everywhere]

    def tasks(self) -> dict[str, Namespace]:
        """Name -> namespace, for the namespaces whose channels are tasks."""
        return {name: namespace for name, namespace in self._by_name.items() if namespace.tasks}

    def durable(self) -> dict[str, Namespace]:
        """Name -> namespace, for the namespaces that need a stream."""
        return {name: namespace for name, namespace in self._by_name.items() if namespace.durable}
