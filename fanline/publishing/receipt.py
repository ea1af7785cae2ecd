"""What `fanline.publish` returns at once, and tells later whether the message was published."""

import os
from collections.abc import Generator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from fanline.base.counted_warnings import CountedWarnings
from fanline.errors import NotPublished
from fanline.producer.waiting import wait

_WARN_SECONDS = 1.0
"""Failures of receipts that are ignored are logged this often; those in between are counted."""


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

    def __repr__(self) -> str:
        """As a notebook shows it: with the outcome, if it is known."""
        failure = self._future.exception() if self.done else None
        outcome = str(failure) if failure else "published" if self.done else "on its way"
        return f"<fanline.Receipt of {self.channel}: {outcome}>"

    @property
    def done(self) -> bool:
        """Whether the outcome of the message is known."""
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
            self._future.add_done_callback(_warn)


_warnings = CountedWarnings(_WARN_SECONDS, "more messages that were not published")


def _warn(future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        _warnings.warn(str(error))


def finish_warnings() -> None:
    """Nothing is published any more."""
    _warnings.finish()
