"""Keeps the streams in being: prepares them at the start, and recreates those that are gone."""

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.streams.streams import Api, RefusedError, ensure_streams
from fanline.engine.namespaces import Namespaces

_RETRY_SECONDS = 0.2
_FAULT_SECONDS = 3.0  # the pause after an unexpected error
_log = logging.getLogger("fanline.bus")


class StreamKeeper:
    """`prepare` once, then `run`. `on_check`: awaited before each check of `run`; `on_ready`: after each one, when all
    streams exist.

    Both are an edge: a reply that JetStream is not known to give, or another fault of ours, is logged once until a
    check succeeds, and the check is tried again. It ends neither this worker nor the next one that starts.
    """

    def __init__(
        self,
        api: Api,
        namespaces: Namespaces,
        bucket_bytes: int,
        on_check: Callable[[], Awaitable[None]],
        on_ready: Callable[[], Awaitable[None]],
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._bucket_bytes = bucket_bytes
        self._on_check = on_check
        self._on_ready = on_ready
        self._wanted = trio.Event()
        self._faulty = False  # whether the last check has met a fault

    def check_soon(self) -> None:
        """Check whether all streams exist."""
        self._wanted.set()

    async def prepare(self) -> None:
        """Create or update the streams; after a fault `run` does that. BusError."""
        try:
            await self._ensure()
        except BusError:
            raise
        except Exception:  # noqa: BLE001  # our own fault, which would stop every worker from starting
            self._report()
            self.check_soon()

    async def run(self) -> NoReturn:
        """Check whenever that is wanted: after an outage, those in memory are gone, and an operator may delete any."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            pause = await self._check()
            if pause:
                await trio.sleep(pause)
                self.check_soon()

    async def _check(self) -> float:
        """After how many seconds to check again; 0 if there is no need to."""
        try:
            await self._on_check()
            await self._ensure()
            await self._on_ready()
        except RefusedError as error:
            _log.error("after the outage: %s", error)
        except BusError as error:
            _log.debug("NATS: %s", error)
            return _RETRY_SECONDS
        except Exception:  # noqa: BLE001  # our own fault, which would end every worker
            self._report()
            return _FAULT_SECONDS
        return 0.0

    async def _ensure(self) -> None:
        await ensure_streams(self._api, self._namespaces, self._bucket_bytes)
        self._faulty = False

    def _report(self) -> None:
        if not self._faulty:
            _log.exception("the streams cannot be checked; it is tried again every %g s", _FAULT_SECONDS)
        self._faulty = True
