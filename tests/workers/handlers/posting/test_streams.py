"""What webhooks need in NATS."""

import asyncio
from typing import Any

import nats.js.errors
from nats.js.api import ConsumerConfig, StreamConfig

from fanline.engine.hooks.settings import Webhook
from fanline.workers.handlers.posting.streams import ensure_streams


class JetStream:
    """Has nothing yet."""

    def __init__(self) -> None:
        self.consumers: list[ConsumerConfig] = []

    async def stream_info(self, name: str) -> None:
        raise nats.js.errors.NotFoundError

    async def add_stream(self, config: StreamConfig) -> None:
        """Takes it."""

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> None:
        self.consumers.append(config)


def test_an_event_that_a_webhook_names_twice_is_asked_for_once() -> None:  # else JetStream refuses the consumer
    js: Any = JetStream()
    webhook = Webhook(url="http://127.0.0.1:1/", events=("sold", "paid", "sold"), secret="whsec_")

    asyncio.run(ensure_streams(js, [webhook], -1))

    (consumer,) = js.consumers
    assert consumer.filter_subjects == ["fanline.event.paid", "fanline.event.sold"]
