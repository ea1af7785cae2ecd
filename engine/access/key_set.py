"""The keys of an identity provider, by URL (JWKS, RFC 7517): read at the start, again every few minutes, and when a
token names a key that is not among them.

While the provider cannot be reached, the keys that were read last stay in use. How often it is asked is bounded
whatever tokens come: a client can invent key names.
"""

import logging
import time
from collections.abc import Sequence
from typing import NoReturn

import httpx
import trio

from fanline.protocol.auth.public_keys import read_key_set
from fanline.protocol.auth.tokens import UnusableKeyError, VerifyingKey

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 5.0
"""Between two attempts, whatever they are for."""
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 256 * 1024
_log = logging.getLogger("fanline.access")


class KeySet:
    """The keys behind one URL. `run` keeps them fresh."""

    def __init__(self, url: str) -> None:
        self._url = url
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
                document = await trio.to_thread.run_sync(_read, self._url, abandon_on_cancel=True)
                self._take(read_key_set(document))
            except (httpx.HTTPError, httpx.InvalidURL, UnusableKeyError) as error:
                self._complain(str(error) or type(error).__name__)

    def _take(self, keys: list[VerifyingKey]) -> None:
        if not keys:
            self._complain("it holds no public key for signatures")
            return
        if self._failing:
            _log.info("the key set at %s can be read again", self._url)
        self._failing = False
        self.keys = keys

    def _complain(self, reason: str) -> None:
        if not self._failing:
            _log.error("cannot read the key set at %s: %s; the keys that are known stay in use", self._url, reason)
        self._failing = True


def _read(url: str) -> bytes:
    """The document, read in a thread: httpx under Trio leaves its generators behind when a document is cut off."""
    ends = time.monotonic() + _TIMEOUT_SECONDS
    with httpx.stream("GET", url, timeout=_TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        document = b""
        for part in response.iter_bytes():
            document += part
            if len(document) > _MAX_BYTES:
                raise UnusableKeyError(f"it has more than {_MAX_BYTES} bytes")
            if time.monotonic() > ends:
                raise UnusableKeyError(f"it takes longer than {_TIMEOUT_SECONDS:g} seconds")
        return document
