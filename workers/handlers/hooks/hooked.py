"""One function that hooks have registered: called within its deadline, counted, timed, and reported if it fails."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from fanline.engine.log_pace import LogPace
from fanline.protocol.handlers import HandlerError
from fanline.protocol.hooks.counters import HookCounters
from fanline.protocol.hooks.hooks import HookRefusal
from fanline.workers.handlers.functions import Function, FunctionCalls

PLACES = 16
"""Concurrent calls of one function; further ones wait, within their deadline. Functions share no places."""
SPARES = 48
"""Calls of one function, each in a thread, that may be abandoned because they do not end; further ones keep places."""
_log = logging.getLogger("fanline.hooks")


class Hooked:
    """`name`: of the event, the message type or the verb."""

    def __init__(self, name: str, function: Function, seconds: float) -> None:
        self._name = name
        self._function = function
        self._label = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
        self._calls = FunctionCalls(seconds, self._report_stuck, places=PLACES, spares=SPARES)
        self._pace = LogPace()
        self._count = self._failed = 0
        self._seconds = 0.0

    @property
    def counters(self) -> HookCounters:
        return HookCounters(
            function=self._label,
            name=self._name,
            calls=self._count,
            failed=self._failed,
            seconds=round(self._seconds, 6),
            stuck=self._calls.stuck,
        )

    async def call(
        self, request: Any, finish: Callable[[Any], Any] = lambda result: result, client: str | None = None
    ) -> Any:
        """What `finish` makes of the function's result. HookRefusal if the function raises it; HandlerError for any
        other failure, also in `finish`, which is logged. `client`: as for FunctionCalls.
        """
        try:
            return finish(await self._timed(request, client))
        except HookRefusal:
            raise
        except Exception as error:  # the application's own
            self._failed += 1
            self._report(error)
            if isinstance(error, HandlerError):
                raise
            raise HandlerError(f"it raised {type(error).__name__}") from None

    async def _timed(self, request: Any, client: str | None) -> Any:
        self._count += 1
        begun = asyncio.get_running_loop().time()
        try:
            return await self._calls.call(self._function, request, client)
        finally:
            self._seconds += asyncio.get_running_loop().time() - begun

    def _report_stuck(self) -> None:
        """Its calls are refused until some of them end. Other functions go on, so the process is not replaced."""
        if self._pace.allows("stuck"):
            text = "the hook %s for %s: %d calls do not end; further ones are refused until some do"
            _log.critical(text, self._label, self._name, self._calls.stuck)

    def _report(self, error: Exception) -> None:
        if not self._pace.allows(type(error).__name__):
            return
        text = "the hook %s for %s: %s; %d of %d calls have failed, %.0f ms each"
        words = str(error) if isinstance(error, HandlerError) else f"it raised {type(error).__name__}"
        counts = (self._failed, self._count, 1000 * self._seconds / self._count)
        trace = error.with_traceback(None) if isinstance(error, HandlerError) else error  # ours shows nothing of theirs
        _log.error(text, self._label, self._name, words, *counts, exc_info=trace)
