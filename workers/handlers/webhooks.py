"""Webhooks: an HTTP server of the application's own is asked with POST."""

import asyncio
import random

import httpx

from fanline.protocol.handlers import MAX_ANSWER_BYTES, Handler, HandlerError

_PAUSE_SECONDS = 0.1  # before the second try, and twice as long after each
_CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=16)
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "fanline"}


class _Retry(Exception):  # noqa: N818  # no error yet
    """Another try may succeed."""


class Webhooks:
    """Closed by `aclose`. `seconds`: for an answer, with all `retries`."""

    def __init__(self, seconds: float, retries: int) -> None:
        self._seconds = seconds
        self._retries = retries
        # No redirects: the request holds secrets, and another server would get them.
        self._client = httpx.AsyncClient(timeout=seconds, limits=_CONNECTIONS, headers=_HEADERS, follow_redirects=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, handler: Handler, payload: bytes) -> bytes:
        """The body of its answer. HandlerError if there is none with status 200 in time."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._ask(handler.text, payload)
        except TimeoutError:
            raise HandlerError(f"it did not answer within {self._seconds:g} s") from None

    async def _ask(self, url: str, payload: bytes) -> bytes:
        for number in range(self._retries + 1):
            try:
                return await self._post(url, payload)
            except _Retry as reason:
                if number == self._retries:
                    raise HandlerError(str(reason)) from None
            await asyncio.sleep(_PAUSE_SECONDS * 2**number * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
        raise AssertionError("the last try returns or raises")

    async def _post(self, url: str, payload: bytes) -> bytes:
        """One try. HandlerError for an answer that another try would not change."""
        try:
            async with self._client.stream("POST", url, content=payload) as response:
                if response.status_code >= 500:
                    raise _Retry(f"it answered with status {response.status_code}")
                if response.status_code != 200:
                    raise HandlerError(f"it answered with status {response.status_code}")
                return await _bounded(response)
        except httpx.TransportError as error:
            raise _Retry(f"it cannot be reached: {_without_url(error)}") from None
        except httpx.HTTPError as error:
            raise HandlerError(f"its answer cannot be read: {_without_url(error)}") from None


async def _bounded(response: httpx.Response) -> bytes:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            raise HandlerError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
    return body


def _without_url(error: httpx.HTTPError) -> str:
    """A URL may hold a secret, and httpx's own texts sometimes hold the URL."""
    text = str(error)
    return type(error).__name__ if "://" in text or not text else text
