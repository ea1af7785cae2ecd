"""Fanline's names in NATS: streams, buckets and their keys, store ids. docs/reference/nats.md lists them.

Sources: ADR-8 (key-value buckets) of the NATS architecture documents; the `Nats-Msg-Id` header of JetStream.
"""

from enum import StrEnum
from hashlib import blake2s
from urllib.parse import quote

from fanline.protocol.nats.subjects import Direction

MESSAGE_ID = "Nats-Msg-Id"
"""Header with a message's store id. Within two minutes, a stream stores each store id only once."""
SIGNATURE = "Fanline-Signature"
"""Header with the engine's signature (engine/bus/nats/signatures.py)."""
SIGNING_KEY = "signing"
"""Key of the bucket KEYS."""
TABLE_NAMESPACE = "tasks"
"""Namespace of the table of running tasks, which only the engine publishes."""
MONITOR_NAMESPACE = "monitor"
"""Namespace of the monitor, in which only the engine publishes."""
ENGINE_NAMESPACES = (TABLE_NAMESPACE, MONITOR_NAMESPACE)
"""Namespaces in which only the engine publishes."""
STREAM_NAMES = "fanline.streams"
"""Where a producer with an account of its own finds `$JS.API.STREAM.NAMES` of the engine's account."""

BOARD_SUBJECT = "fanline.board"
"""Where producers tell the engine of the items of task boards (protocol/compat/board.py)."""
EVENT_PREFIX = "fanline.event."
"""Of the subjects on which the engine says what happens (protocol/hooks/events.py). Producers may not use them."""
AUDIT_SUBJECT = f"{EVENT_PREFIX}audit"
"""The subject on which workers publish the audit log: who connected, who was refused, and who did what."""

EVENTS_STREAM = "fanline_events"
"""The stream of the events that webhooks get. It is there if the settings have any."""
DEAD_EVENTS = "fanline_dead_events"
"""The stream of those that a webhook did not take."""

NOTIFY_SUBJECT = "fanline.notify"
"""On which any program asks for a notification (protocol/notifications/notification.py)."""
NOTIFICATIONS_STREAM = "fanline_notifications"
"""The work queue of requests that are not decided yet."""
DISPATCHES_STREAM = "fanline_dispatches"
"""The work queue of what is to leave by e-mail, SMS or push."""
DEAD_NOTIFICATIONS = "fanline_dead_notifications"
"""The stream of notifications that were given up."""


class Bucket(StrEnum):
    """The key-value buckets of a cluster. Their keys consist of characters that a channel's id may contain."""

    CURSORS = "fanline_cursors"
    """Inbox channel -> the offset up to which its user has acknowledged."""
    SESSIONS = "fanline_sessions"
    """Session id -> the session's user and subscriptions. Expires after the resume window."""
    TASKS = "fanline_tasks"
    """Task channel -> its snapshot, output and estimate. Expires some time after the last change."""
    RUNNING = "fanline_running"
    """Share and task channel -> what the timers of a running task need. Exists from its start to its end."""
    LEASES = "fanline_leases"
    """Duty -> the worker that holds it, and how far it has got."""
    PLACES = "fanline_places"
    """User -> the connections that it has in the whole cluster, if they are limited."""
    REVOKED = "fanline_revoked"
    """Token or user -> which tokens were taken back. Expires when all of them have ended."""
    WORKERS = "fanline_workers"
    """Worker id -> what is known of a live worker. Expires three seconds after the worker's last sign of life."""
    ITEMS = "fanline_items"
    """Item of a task board -> its project, its assignee and how it was last. Expires long after the last change."""
    NOTIFIED = "fanline_notified"
    """Notification -> what was decided of it, and what has left. Expires when it cannot come again."""
    NOTIFICATIONS_READ = "fanline_notifications_read"
    """User -> which notifications it has read."""
    PREFERENCES = "fanline_preferences"
    """User -> its addresses, and how it wants to be notified."""
    API_KEYS = "fanline_api_keys"
    """Id of a key of the management API -> its name, its rights and a digest of its secret."""
    MINUTES = "fanline_minutes"
    """Minute -> what was counted in the whole cluster. Expires after 30 days."""
    ALARMS = "fanline_alarms"
    """Alarm -> its state, and since when it has it."""
    KEYS = "fanline_keys"
    """The key with which the engine signs what only the engine may say. Producers must not be able to read it."""


def dead_subject(webhook: str) -> str:
    """Where the events are stored that a webhook did not take."""
    return f"fanline.dead.{webhook}"


def dispatch_subject(channel: str, key: str = "*") -> str:
    """Where a dispatch waits that leaves by a channel of notifications; a `*` for the key: all of them."""
    return system_subject("dispatch", channel, key)


def dead_notification_subject(user: str = "*", key: str = "*") -> str:
    """Where a notification is stored that was given up. `user`: a digest of its user's name; a `*`: any."""
    return f"fanline.dead.notification.{user}.{key}"


def system_subject(*parts: str) -> str:
    """A subject on which the engine's processes ask and tell each other something. Producers may not use it."""
    return ".".join(("fanline.sys", *parts))


def stream_name(namespace: str) -> str:
    """The stream of a durable namespace."""
    return f"FANLINE_{namespace}"


def namespace_subject(namespace: str, direction: Direction = Direction.PUB) -> str:
    """Everything that is published, or republished, in a namespace."""
    return f"fanline.{direction}.{namespace}.>"


def bucket_stream(bucket: Bucket) -> str:
    """The stream behind a bucket."""
    return f"KV_{bucket}"


def bucket_subject(bucket: Bucket, key: str) -> str:
    """The subject of a key; `>` for all keys."""
    return f"$KV.{bucket}.{key}"


def change_subject(bucket: Bucket, key: str) -> str:
    """Where the store says that it has stored a change of a key; `>` for all keys."""
    return system_subject("stored", bucket, key)


def changed_key(bucket: Bucket, subject: str) -> str:
    """The key that has changed: the inverse of `change_subject`."""
    return subject.removeprefix(change_subject(bucket, ""))


def key_of(bucket: Bucket, subject: str) -> str:
    """The key of a bucket's subject: the inverse of `bucket_subject`."""
    return subject.removeprefix(bucket_subject(bucket, ""))


def channel_key(channel: str) -> str:
    """The key of a channel: `task.42` for `task:42`. A key holds no colon (ADR-8)."""
    return channel.replace(":", ".", 1)


def channel_of_key(key: str) -> str:
    """The channel of a key that `channel_key` made."""
    return key.replace(".", ":", 1)


def name_key(name: str) -> str:
    """A key, or a part of one, for a name that may hold what keys cannot."""
    return blake2s(name.encode(), digest_size=16).hexdigest()


def client_store_id(user: str | None, channel: str, deduplication_id: str) -> str:
    """The store id of a message that a client publishes with a de-duplication id, which is its user's own."""
    return _store_id("c", user or "", channel, deduplication_id)


def engine_store_id(channel: str, name: str) -> str:
    """The store id of a message of the engine's own, out of every client's reach."""
    return _store_id("e", channel, name)


def producer_store_id(channel: str, message_id: str) -> str:
    """The store id of a message that a producer publishes to NATS itself."""
    return _store_id("", channel, message_id)


def _store_id(*parts: str) -> str:
    # Percent-encoded, a part holds neither a slash nor a line break: no two lists of parts make the same store id.
    return "/".join(quote(part, safe="=@+~,:") for part in parts)
