"""What the calls answer, besides what workers answer themselves (protocol/management/answers.py)."""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from fanline.protocol.hooks.counters import HookCounters, WebhookCounters

Item = TypeVar("Item")


class ApiModel(BaseModel):
    """Base of all models: docstrings are descriptions."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")


class Coverage(ApiModel):
    """How many of the cluster's workers the answer comes from."""

    answered: int
    missing: list[str]
    """Workers that have not answered in time: their items are not in the answer."""


class ApiPage(ApiModel, Generic[Item]):
    """Some of a list."""

    items: list[Item]
    next: str | None
    """Pass it as `after` for the next page; null: this is the last one."""
    total: int | None
    """How many match; a lower bound for names that several workers may have. null: not counted."""
    workers: Coverage | None = None


class ApiInfo(ApiModel):
    """What clients and operators need to know about the server."""

    version: str
    server: str
    """The one that answers: the name of the machine, and the process id of the supervisor."""
    endpoint: str
    """The path of the WebSocket endpoint."""
    protocols: list[str]
    """Subprotocols; clients that ask for none speak the plain dialect."""
    max_connections: int | None
    """Of all workers of this server; null: limited only by open files."""
    workers: int
    auth: str
    """The mode: development, token or open."""
    heartbeat: float
    """Seconds between two pings."""
    max_message_bytes: int
    routes: list[str]
    namespaces: list[str]


class WorkerStats(ApiModel):
    """One worker."""

    name: str
    server: str
    """The name of the machine, and the process id of the supervisor."""
    host: str
    pid: int
    started: str
    counters: dict[str, int]
    """Everything that it counts; docs/reference/management-api.md describes each."""


class Stats(ApiModel):
    """The whole cluster; counts are since the start of the workers."""

    total_connections: int
    active_connections: int
    """The same."""
    online_users: int
    active_users: int
    """The same."""
    anonymous_connections: int
    total_user_connections: int
    """Connections of known users."""
    total_session_connections: int
    """Connections that are subscribed to a channel of the namespace `session`."""
    active_channels: int
    """Channels with subscribers."""
    active_sessions: int
    """Those in the namespace `session`."""
    messages_sent: int
    """Messages to connections: one to a thousand subscribers counts as a thousand."""
    messages_received: int
    """Messages from clients."""
    disconnections: int
    abnormal_disconnections: int
    """Connections that were closed because they were too slow, silent, flooding, or broke the protocol."""
    errors: int
    """Commands of clients that were refused."""
    hooks: list[HookCounters]
    """Functions of the application, of all servers."""
    webhooks: list[WebhookCounters]
    per_worker: list[WorkerStats]
    workers: Coverage


class OnlineUser(ApiModel):
    """A user with at least one connection."""

    user_id: str
    connections: int


class ChannelSummary(ApiModel):
    """A channel with at least one subscription."""

    channel: str
    subscribers: int
    """Subscriptions, of all workers."""


class StreamSummary(ApiModel):
    """What is stored of a channel."""

    last_offset: int
    """0: nothing."""
    epoch: str


class ChannelDetails(ChannelSummary):
    """A channel, whether it has subscribers or not."""

    namespace: str
    durable: bool
    presence: bool
    """Whether the namespace has presence."""
    stream: StreamSummary | None
    """null for a channel that is not durable."""
    workers: Coverage


class PresenceUser(ApiModel):
    """A user on a channel."""

    user_id: str
    username: str | None = None


class PresenceAnswer(ApiModel):
    """Who is on a channel."""

    channel: str
    count: int
    """Users."""
    connections: int
    anonymous: int
    """Connections without a user name."""
    users: list[PresenceUser] | None
    """null: too many to be listed."""


class TaskSummary(ApiModel):
    """What is known about a task."""

    task_id: str
    channel: str
    state: str
    snapshot: dict[str, Any]
    """As viewers get it; docs/reference/tasks.md describes it."""
