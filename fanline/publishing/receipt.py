"""What `fanline.publish` returns at once, and tells later whether the message was published."""

import logging
import os
import time
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from fanline.errors import NotPublished
from fanline.producer.waiting import wait

_log = logging.getLogger("fanline")
_WARN_SECONDS = 1.0
"""Failures that nobody asks for are logged this often; those in between are counted."""


class Receipt:
    """Of one message. It may be awaited (under asyncio and Trio), waited for (in plain code), or ignored: then a
    failure is logged as a warning.

    A wait that is cancelled or runs out of time leaves the message alone: it is published all the same.
    """

    __slots__ = ("_asked", "_future", "_process", "channel", "deduplication_id")

    def __init__(self, channel: str, deduplication_id: str, future: Future[None]) -> None:
        self.channel = channel
        self.deduplication_id = deduplication_id
        """Within two minutes, a durable channel stores a message only once that is published again under this id."""
        self._future = future
        self._asked = False
        self._process = os.getpid()

    @property
    def done(self) -> bool:
        """Whether it is known what has become of the message."""
        return self._future.done()

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait until the message is stored if the channel is durable, otherwise until NATS has accepted it. Raises
        NotPublished.
        """
        self._ask()
        return wait(self._future).__await__()

    def wait(self, seconds: float | None = None) -> None:
        """The same in a program without an event loop; it blocks the thread. Raises NotPublished, or TimeoutError if
        nothing is known after `seconds` seconds; None: it is known after 30 seconds at the latest.
        """
        self._ask()
        try:
            self._future.result(seconds)
        except FutureTimeoutError:
            raise TimeoutError(f"nothing is known of the message on {self.channel} after {seconds:g} seconds") from None

    def _ask(self) -> None:
        self._asked = True
        if self._process != os.getpid() and not self._future.done():
            raise NotPublished(
                f"the message on {self.channel} was handed over before this process was forked: ask in its parent"
            )

    def __del__(self) -> None:
        if not self._asked and self._process == os.getpid():
            self._future.add_done_callback(_warnings.take)


class _Warnings:
    """Failures that nobody asks for."""

    def __init__(self) -> None:
        self._logged_at = float("-inf")
        self._omitted = 0

    def take(self, future: Future[None]) -> None:
        error = future.exception()
        if error is None:
            return
        now = time.monotonic()
        if now - self._logged_at < _WARN_SECONDS:
            self._omitted += 1
            return
        more = f" ({self._omitted} more since the last warning)" if self._omitted else ""
        self._logged_at, self._omitted = now, 0
        _log.warning("%s%s", error, more)

    def finish(self) -> None:
        """No warning follows that would tell of those that were not logged."""
        omitted, self._omitted = self._omitted, 0
        if omitted:
            _log.warning("more messages that were not published: %d", omitted)


_warnings = _Warnings()


def finish_warnings() -> None:
    """Nothing is published any more."""
    _warnings.finish()
