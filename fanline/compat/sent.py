"""What every call returns: it is under way already, and may be awaited, waited for, or ignored."""

import logging
import secrets
import time
from collections.abc import Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any

from fanline.errors import NotPublished
from fanline.protocol.copies import copies_of
from fanline.protocol.envelope import Envelope
from fanline.publishing.publish import publish_envelope
from fanline.publishing.receipt import Receipt

_log = logging.getLogger("fanline")


class Sent(Coroutine[Any, Any, bool]):
    """The copies of one message. `await sent` (asyncio, Trio) or `sent.wait()` (plain code) tells whether all of them
    were published: stored, or accepted by NATS if the channel is ephemeral. Why not is in the log.

    A coroutine, since programs pass what these calls return to `asyncio.create_task`.
    """

    def __init__(self, receipts: Iterable[Receipt]) -> None:
        self._receipts = list(receipts)
        self._running: Coroutine[Any, Any, bool] | None = None

    def wait(self, seconds: float | None = None) -> bool:
        """In a program without an event loop. Raises TimeoutError if it is not known after `seconds` seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        published = True
        for receipt in self._receipts:
            try:
                receipt.wait(None if end is None else max(0.0, end - time.monotonic()))
            except NotPublished as error:
                published = _refused(error)
        return published

    def __await__(self) -> Generator[Any, Any, bool]:
        return self._wait().__await__()

    async def _wait(self) -> bool:
        published = True
        for receipt in self._receipts:
            try:
                await receipt
            except NotPublished as error:
                published = _refused(error)
        return published

    # --- as a coroutine ------------------------------------------------------------------------------------------

    def send(self, value: Any) -> Any:
        if self._running is None:
            self._running = self._wait()
        return self._running.send(value)

    def throw(self, error: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        if self._running is None:
            self._running = self._wait()
        return self._running.throw(error if value is None else value)

    def close(self) -> None:
        if self._running is not None:
            self._running.close()


def publish_copies(envelope: Envelope, channels: Iterable[str]) -> Sent:
    """Publish one copy of an event on each channel; who hears several of them gets it once. Raises NotPublished for
    what can never be published.
    """
    envelope.id = envelope.id or secrets.token_urlsafe(12)
    return Sent([publish_envelope(copy.channel or "", copy) for copy in copies_of(envelope, channels)])


def _refused(error: NotPublished) -> bool:
    _log.warning("%s", error)
    return False
