"""All webhooks of the settings."""

import asyncio
from collections.abc import Sequence

import httpx
from nats.aio.client import Client

from fanline.engine.hooks.settings import Webhook
from fanline.workers.handlers.posting.poster import Poster
from fanline.workers.handlers.posting.postman import Postman
from fanline.workers.handlers.posting.streams import ensure_streams

_CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=16)


class PostOffice:
    """Closed by `aclose`. `bucket_bytes`: as in EngineSettings."""

    def __init__(self, client: Client, webhooks: Sequence[Webhook], bucket_bytes: int) -> None:
        self._client = client
        self._js = client.jetstream()
        self._webhooks = webhooks
        self._bucket_bytes = bucket_bytes
        # No redirects: another server would get what this one is to have.
        self._http = httpx.AsyncClient(limits=_CONNECTIONS, follow_redirects=False)
        self._changing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Store events for the webhooks from now on, and bring them. nats.errors.Error."""
        await self._ensure()
        for webhook in self._webhooks:
            poster = Poster(webhook, self._http)
            postman = Postman(self._js, webhook, poster, self._ensure, lambda: self._client.max_payload)
            self._tasks.append(asyncio.create_task(postman.run()))

    async def _ensure(self) -> None:
        async with self._changing:  # what one changes, another one must not change back
            await ensure_streams(self._js, self._webhooks, self._bucket_bytes)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._http.aclose()
