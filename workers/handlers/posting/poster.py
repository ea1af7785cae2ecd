"""Posts a batch of events to a URL."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx

from fanline.engine.hooks.settings import Webhook
from fanline.protocol.hooks.events import ServerEvent
from fanline.protocol.hooks.signing import batch_id, key_of, signed_headers
from fanline.protocol.text import without_secrets

_SECONDS = 15.0  # for the status of an answer
_REST_SECONDS, _MOST_READ = 1.0, 64 * 1024  # for what follows it, and bytes of that
MAX_REASON = 200
"""Characters of the description of an answer: some of httpx's texts quote the whole answer."""
_HEADERS = {"Content-Type": "application/json", "User-Agent": "fanline"}


_CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=16)


def open_http() -> httpx.AsyncClient:
    """The client for all webhooks. It follows no redirects: events are meant for this server and no other."""
    return httpx.AsyncClient(limits=_CONNECTIONS, follow_redirects=False)


class NotTakenError(Exception):
    """The events were not accepted; str() says why, without the URL. `answered`: whether there was an answer."""

    def __init__(self, text: str, *, answered: bool) -> None:
        super().__init__(text)
        self.answered = answered


class Poster:
    """To one webhook. `clock`: Unix seconds."""

    def __init__(self, webhook: Webhook, client: httpx.AsyncClient, clock: Callable[[], float] = time.time) -> None:
        self.label = without_secrets(webhook.url)
        self._url = webhook.url
        self._key = key_of(webhook.secret)
        self._client = client
        self._clock = clock

    async def post(self, events: Sequence[tuple[ServerEvent, bytes]]) -> None:
        """Post events, each with its body as it came. NotTakenError unless the answer has a status of success."""
        body = b'{"events":[' + b",".join(payload for _, payload in events) + b"]}"
        request_id = batch_id(event.id for event, _ in events)
        headers = _HEADERS | signed_headers(self._key, request_id, int(self._clock()), body)
        try:
            status = await self._send(body, headers)
        except TimeoutError:
            raise NotTakenError(f"it did not answer within {_SECONDS:g} s", answered=False) from None
        except httpx.HTTPError as error:
            text = str(error)  # httpx's own texts sometimes hold the URL
            words = type(error).__name__ if "://" in text or not text else text
            raise NotTakenError(words[:MAX_REASON], answered=False) from None
        except (httpx.InvalidURL, UnicodeError):  # its host is not a valid name
            raise NotTakenError("its URL cannot be used", answered=False) from None
        if not 200 <= status < 300:
            raise NotTakenError(f"it answered with status {status}", answered=True)

    async def _send(self, body: bytes, headers: dict[str, str]) -> int:
        """The status of the answer, which alone counts, whatever becomes of the rest."""
        request = self._client.build_request("POST", self._url, content=body, headers=headers, timeout=_SECONDS)
        async with asyncio.timeout(_SECONDS):
            response = await self._client.send(request, stream=True)
        try:
            with suppress(httpx.HTTPError, TimeoutError):
                await _read(response)
        finally:
            await response.aclose()
        return response.status_code


async def _read(response: httpx.Response) -> None:
    """Read the rest of a short answer, so that its connection can be used again."""
    size = 0
    async with asyncio.timeout(_REST_SECONDS):
        async for part in response.aiter_raw():
            size += len(part)
            if size > _MOST_READ:
                return
