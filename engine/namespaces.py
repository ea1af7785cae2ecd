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
    """What happens to a subscriber who does not keep up."""

    RESUME = "resume"  # closed with 4008; it comes back with its offset, and nothing is lost
    CONFLATE = "conflate"  # of each sender and event only the newest message is kept; then as `resume`
    DROP = "drop"  # messages are left out, counted, and told by a `gap` frame; ephemeral namespaces only


class Publishers(StrEnum):
    """Who may publish through a WebSocket; producers on NATS always may, by NATS's own permissions."""

    EVERYONE = "everyone"
    BACKEND = "backend"


class Namespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The promises of one namespace. What follows `durable` matters only for a durable one."""

    durable: bool = False
    """Stored in a JetStream stream: at least once to a client that resumes. Otherwise at most once."""
    history: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """Messages kept per channel."""
    max_age: Annotated[float, Meta(ge=0.1)] = _DAY
    """Seconds a message is kept."""
    max_bytes: Annotated[int, Meta(ge=-1)] = 1 << 30
    """Bytes kept for the whole namespace; -1 for no bound of its own."""
    storage: Storage = Storage.FILE
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """Copies in a NATS cluster; the embedded server has one."""
    slow: SlowPolicy = SlowPolicy.RESUME
    publish: Publishers = Publishers.EVERYONE
    inbox: bool = False
    """A channel is its user's inbox: who subscribes without a position gets what was not acknowledged yet."""
    everywhere: bool = False
    """Every worker hears all its channels, so that an urgent message reaches every connection (backlog.py)."""
    tasks: bool = False
    """Its channels are tasks: snapshots, log tails, stall watch, calls to producers (docs/reference/tasks.md)."""
    retention: Annotated[float, Meta(ge=1, le=31_536_000)] = 7 * _DAY
    """Seconds for which a task's snapshot is kept after its last change."""
    presence: bool = False
    """Whether the members of its channels are told about each other."""


_DURABLE = Namespace(durable=True)
DEFAULTS: Mapping[str, Namespace] = {
    "task": Namespace(durable=True, history=5000, tasks=True),
    "tasks": Namespace(durable=True, history=1, publish=Publishers.BACKEND),  # the keeper's tables
    "project": _DURABLE,
    "user": Namespace(durable=True, max_age=7 * _DAY, inbox=True),
    "session": _DURABLE,
    "system": Namespace(durable=True, publish=Publishers.BACKEND, everywhere=True),
    "doc": _DURABLE,
    "typing": Namespace(slow=SlowPolicy.DROP),
    "cursor": Namespace(slow=SlowPolicy.DROP),
    "presence": Namespace(slow=SlowPolicy.DROP),
}
UNKNOWN = Namespace()
"""A namespace that nobody declared is ephemeral, and everybody may use it."""


class Namespaces:
    """The defaults with the settings on top."""

    def __init__(self, declared: Mapping[str, Namespace] | None = None) -> None:
        self._by_name = {**DEFAULTS, **(declared or {})}

    def of(self, channel: str) -> Namespace:
        """The namespace of a channel."""
        return self._by_name.get(namespace_of(channel), UNKNOWN)

    def everywhere(self) -> list[str]:
        """The names of those that every worker hears."""
        return [name for name, namespace in self._by_name.items() if namespace.everywhere]

    def tasks(self) -> dict[str, Namespace]:
        """Name -> namespace of those whose channels are tasks."""
        return {name: namespace for name, namespace in self._by_name.items() if namespace.tasks}

    def durable(self) -> dict[str, Namespace]:
        """Name -> namespace of those that need a stream."""
        return {name: namespace for name, namespace in self._by_name.items() if namespace.durable}
