"""The keys of an identity provider, by URL (JWKS, RFC 7517): read at the start, again every few minutes, and when a
token names a key that is not among them.

While the provider cannot be reached, the keys that were read last stay in use. How often it is asked is bounded
whatever tokens come: a client can invent key names.
"""

import logging
import ssl
from collections.abc import Sequence
from typing import NoReturn

import httpx
import trio

from fanline.protocol.auth.public_keys import read_key_set
from fanline.protocol.auth.tokens import UnusableKeyError, VerifyingKey
from fanline.protocol.text import without_secrets

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 5.0
"""Between two attempts, whatever they are for."""
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 256 * 1024
_PLAIN = {"Accept-Encoding": "identity"}
_log = logging.getLogger("fanline.access")


class KeySet:
    """The keys behind one URL. `run` keeps them fresh."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._shown = without_secrets(url)
        self._tls = httpx.create_ssl_context()
        self.keys: Sequence[VerifyingKey] = ()
        self._reading = trio.Lock()
        self._tried_at = -RETRY_SECONDS  # Trio time
        self._failing = False

    async def run(self) -> NoReturn:
        """Read the keys again and again."""
        while True:
            await self.refresh()
            await trio.sleep(RETRY_SECONDS if self._failing else REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the keys, unless that was tried a moment ago. Of several callers one reads, the others wait for it."""
        async with self._reading:
            if trio.current_time() - self._tried_at < RETRY_SECONDS:
                return
            self._tried_at = trio.current_time()
            try:
                self._take(read_key_set(await _read(self._url, self._tls)))
            except (httpx.HTTPError, httpx.InvalidURL, UnusableKeyError) as error:
                self._complain(str(error) or type(error).__name__)

    def _take(self, keys: list[VerifyingKey]) -> None:
        if not keys:
            self._complain("it holds no public key for signatures")
            return
        if self._failing:
            _log.info("the key set at %s can be read again", self._shown)
        self._failing = False
        self.keys = keys

    def _complain(self, reason: str) -> None:
        if not self._failing:
            _log.error("cannot read the key set at %s: %s; the keys that are known stay in use", self._shown, reason)
        self._failing = True


async def _read(url: str, tls: ssl.SSLContext) -> bytes:
    """The document, as it is sent: a compressed one, which might be anything of any size, is no key set."""
    document = b""
    with trio.move_on_after(_TIMEOUT_SECONDS) as scope:
        async with httpx.AsyncClient(verify=tls) as client, client.stream("GET", url, headers=_PLAIN) as response:
            if response.status_code != 200:
                raise UnusableKeyError(f"it answers {response.status_code}")
            async for part in response.aiter_raw():
                document += part
                if len(document) > _MAX_BYTES:
                    scope.cancel()  # not `break`: it would leave httpx's generators behind, unfinished
    if len(document) > _MAX_BYTES:
        raise UnusableKeyError(f"it has more than {_MAX_BYTES} bytes")
    if scope.cancelled_caught:
        raise UnusableKeyError(f"it takes longer than {_TIMEOUT_SECONDS:g} seconds")
    return document
