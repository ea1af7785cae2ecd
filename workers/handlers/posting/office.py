"""All webhooks of the settings."""

import asyncio
from collections.abc import Sequence

from nats.aio.client import Client

from fanline.engine.hooks.settings import Webhook
from fanline.protocol.hooks.counters import WebhookCounters
from fanline.workers.handlers.posting.dead_letters import DeadLetters
from fanline.workers.handlers.posting.poster import Poster, open_http
from fanline.workers.handlers.posting.postman import Postman
from fanline.workers.handlers.posting.streams import consumer_name, ensure_streams


class PostOffice:
    """Closed by `aclose`. `bucket_bytes`: as in EngineSettings."""

    def __init__(self, client: Client, webhooks: Sequence[Webhook], bucket_bytes: int) -> None:
        self._js = client.jetstream()
        self._webhooks = webhooks
        self._bucket_bytes = bucket_bytes
        self._http = open_http()
        posters = {consumer_name(webhook): Poster(webhook, self._http) for webhook in webhooks}
        self._postmen = [
            Postman(self._js, webhook, posters[consumer_name(webhook)], self._ensure, lambda: client.max_payload)
            for webhook in webhooks
        ]
        self.dead_letters = DeadLetters(self._js, posters)
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Store events for the webhooks from now on, and deliver them. nats.errors.Error."""
        await self._ensure()
        self._tasks = [asyncio.create_task(postman.run()) for postman in self._postmen]

    def counters(self) -> list[WebhookCounters]:
        return [postman.counters for postman in self._postmen]

    async def _ensure(self) -> None:
        async with self._changing:  # what one changes, another one must not change back
            await ensure_streams(self._js, self._webhooks, self._bucket_bytes)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._http.aclose()
