"""Whether a worker can do its work now, for load balancers and operators: `/readyz`. (`/healthz` says that it lives.)

This is tried, not inferred: each stream is given a message that it would store except for an impossible condition, and
a small entry is written. The result is valid for a second, so that this costs NATS little.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import trio

from fanline.engine.bus.errors import BusError, StorageFullError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.parallel import for_each
from fanline.engine.namespaces import Namespaces
from fanline.protocol.nats.names import Bucket

_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 2.0  # for everything
_STREAM_SECONDS = 1.0
_KEY = "readyz"  # no task has this key: theirs hold a dot
_KEY_SECONDS = 60.0


class Reason(StrEnum):
    """The `code` of a problem. docs/reference/protocol.md has the same list; a test compares."""

    NATS = "nats"  # it cannot be reached, or does not answer
    STREAMS = "streams"  # one of them takes no messages
    STORAGE_FULL = "storage_full"  # nothing can be stored for want of room
    STORAGE = "storage"  # nothing can be stored, for another reason
    DRAINING = "draining"  # the worker is about to end


class Problem(NamedTuple):
    """Why the worker is not ready."""

    code: Reason
    message: str
    """A sentence for a person."""


class Readiness:
    """The readiness of one worker. `draining`: whether it is about to end."""

    def __init__(self, bus: Bus, namespaces: Namespaces, draining: Callable[[], bool]) -> None:
        self._bus = bus
        self._namespaces = namespaces
        self._draining = draining
        self._lock = trio.Lock()
        self._found: list[Problem] = []
        self._fresh_until = 0.0  # Trio time

    async def problems(self) -> list[Problem]:
        """What keeps this worker from its work; nothing if it is ready."""
        if self._draining():
            return [Problem(Reason.DRAINING, "this worker is about to end; clients are asked to reconnect")]
        async with self._lock:
            if trio.current_time() >= self._fresh_until:
                self._found = await self._look()
                self._fresh_until = trio.current_time() + _FRESH_SECONDS
            return self._found

    async def _look(self) -> list[Problem]:
        with trio.move_on_after(_PATIENCE_SECONDS):
            return await self._ask_streams() or await self._write()
        return [Problem(Reason.NATS, f"NATS did not answer within {_PATIENCE_SECONDS:g} seconds")]

    async def _ask_streams(self) -> list[Problem]:
        failures: dict[str, BusError] = {}
        namespaces = list(self._namespaces.durable())

        async def ask(namespace: str) -> None:
            try:
                with trio.move_on_after(_STREAM_SECONDS):
                    await self._bus.check_writable(namespace)
                    return
                failures[namespace] = BusError(f"no answer within {_STREAM_SECONDS:g} s")
            except BusError as error:
                failures[namespace] = error

        await for_each(ask, namespaces)
        if failures and len(failures) == len(namespaces):
            return [Problem(Reason.NATS, f"NATS cannot be used: {failures[namespaces[0]]}")]
        return [
            Problem(
                Reason.STORAGE_FULL if isinstance(failures[name], StorageFullError) else Reason.STREAMS,
                f"the stream of namespace {name} takes no messages: {failures[name]}",
            )
            for name in namespaces
            if name in failures
        ]

    async def _write(self) -> list[Problem]:
        try:
            await self._bus.kv_put(Bucket.TASKS, _KEY, b"", _KEY_SECONDS)
        except StorageFullError as error:
            return [Problem(Reason.STORAGE_FULL, str(error))]
        except BusError as error:
            return [Problem(Reason.STORAGE, f"nothing can be stored: {error}")]
        return []
