"""The streams of the work queues, as JetStream has them configured. No I/O.

A work queue refuses what does not fit, rather than drop what is not done, so its producer knows.
"""

from typing import Any

from fanline.engine.bus.work import ACK_SECONDS, WorkQueue
from fanline.engine.namespaces import Storage
from fanline.protocol.nats.names import (
    DEAD_NOTIFICATIONS,
    DISPATCHES_STREAM,
    NOTIFICATIONS_STREAM,
    NOTIFY_SUBJECT,
    dead_notification_subject,
    dispatch_subject,
)

WAITING_SECONDS = 7 * 86_400.0
"""How long an item is kept that no taker has done."""
DEAD_SECONDS = 30 * 86_400.0
"""How long an item is kept that was given up."""
_DEDUPLICATION_SECONDS = 120.0
_ITEMS, _DEAD_ITEMS = 100_000, 25_000  # at most, in a NATS of others: of bytes JetStream would set aside as many


def work_configs(replicas: int, bucket_bytes: int) -> list[dict[str, Any]]:
    """All of them, and the stream of what was given up. `bucket_bytes`: as in EngineSettings."""
    work: dict[str, Any] = {"retention": "workqueue", "discard": "new", **_most(bucket_bytes, _ITEMS)}
    return [
        _config(NOTIFICATIONS_STREAM, NOTIFY_SUBJECT, WAITING_SECONDS, replicas) | work,
        _config(DISPATCHES_STREAM, dispatch_subject("*"), WAITING_SECONDS, replicas) | work,
        _config(DEAD_NOTIFICATIONS, dead_notification_subject(), DEAD_SECONDS, replicas)
        | {"retention": "limits", "discard": "old", **_most(bucket_bytes // 4, _DEAD_ITEMS)},
    ]


def _most(share: int, items: int) -> dict[str, int]:
    """The limits of a stream: `share` bytes of the embedded nats-server's store, or so many items if it is negative."""
    return {"max_bytes": -1, "max_msgs": items} if share < 0 else {"max_bytes": share, "max_msgs": -1}


def _config(name: str, subject: str, max_age: float, replicas: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": [subject],
        "storage": Storage.FILE,
        "num_replicas": replicas,
        "max_age": round(max_age * 1e9),
        "duplicate_window": round(_DEDUPLICATION_SECONDS * 1e9),
        "allow_direct": True,
    }


def taker_config(queue: WorkQueue) -> dict[str, Any]:
    """The consumer of a queue. It gives out any number of items at a time: takers bound what they hold, and items that
    wait to be given out again (`later`), as in quiet hours, count as given out.
    """
    return {
        "durable_name": queue.name,
        "ack_policy": "explicit",
        "ack_wait": round(ACK_SECONDS * 1e9),
        "filter_subject": queue.subject,
        "max_ack_pending": -1,
        "max_deliver": -1,
    }
