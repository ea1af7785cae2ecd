"""What webhooks need in NATS: a stream of the events that they get, one of those that were given up, and for each
webhook a consumer that remembers what was accepted.
"""

from collections.abc import Iterable, Sequence

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, DiscardPolicy, StorageType, StreamConfig

from fanline.engine.hooks.settings import Webhook
from fanline.protocol.hooks.events import event_subject
from fanline.protocol.nats.names import DEAD_EVENTS, EVENTS_STREAM, dead_subject, name_key

KEPT_SECONDS = 3 * 86_400.0
"""How long events wait for a webhook that does not accept them."""
DEAD_SECONDS = 30 * 86_400.0
"""How long events that were given up are kept."""
ACK_SECONDS = 10.0
"""How long a process may hold events without a sign of life before they go to another process."""
_DEDUPLICATION_SECONDS = 120.0
_BYTES, _DEAD_BYTES = 256 << 20, 64 << 20  # at most, on an external NATS, which has no limits of ours


def consumer_name(webhook: Webhook) -> str:
    """That of the consumer, and of what was given up. It shows nothing of a URL that may hold a secret."""
    return name_key(webhook.url)


async def ensure_streams(js: JetStreamContext, webhooks: Sequence[Webhook], bucket_bytes: int) -> None:
    """Create what is missing, and change what differs from the settings. nats.errors.Error.

    `bucket_bytes`: as in EngineSettings; what is stored for webhooks has a part of it, besides the buckets.
    """
    subjects = sorted({event_subject(event) for webhook in webhooks for event in webhook.events})
    most, dead = (_BYTES, _DEAD_BYTES) if bucket_bytes < 0 else (bucket_bytes // 2, bucket_bytes // 8)
    await _ensure_stream(js, _stream(EVENTS_STREAM, subjects, KEPT_SECONDS, most))
    await _ensure_stream(js, _stream(DEAD_EVENTS, [dead_subject("*")], DEAD_SECONDS, dead))
    for webhook in webhooks:
        await js.add_consumer(EVENTS_STREAM, _consumer(webhook))


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> None:
    """Another server with other webhooks may have subjects of its own in it."""
    try:
        found = (await js.stream_info(config.name or "")).config
    except nats.js.errors.NotFoundError:
        await js.add_stream(config)
        return
    missing = set(config.subjects or ()) - set(found.subjects or ())
    if missing or found.max_bytes != config.max_bytes:
        subjects = sorted({*(found.subjects or ()), *(config.subjects or ())})
        await js.update_stream(found.evolve(subjects=subjects, max_bytes=config.max_bytes))


def _stream(name: str, subjects: Iterable[str], max_age: float, max_bytes: int) -> StreamConfig:
    """A full stream drops its oldest messages: a webhook that accepts nothing must not hold up the others, nor may a
    record that nobody reads hold up events that are still to be posted.
    """
    return StreamConfig(
        name=name,
        discard=DiscardPolicy.OLD,
        subjects=list(subjects),
        storage=StorageType.FILE,
        max_age=max_age,
        max_bytes=max_bytes,
        duplicate_window=_DEDUPLICATION_SECONDS,
        allow_direct=True,
    )


def _consumer(webhook: Webhook) -> ConsumerConfig:
    """A webhook gets events from its first start on. A consumer that no server uses any more is deleted."""
    return ConsumerConfig(
        durable_name=consumer_name(webhook),
        deliver_policy=DeliverPolicy.NEW,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_SECONDS,
        filter_subjects=sorted({event_subject(event) for event in webhook.events}),
        inactive_threshold=KEPT_SECONDS,
    )
