"""Finds where the application's code hangs: in a coroutine, in a thread, or blocking the loop."""

import asyncio
import faulthandler
import logging
import math
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

BLOCKED_SECONDS = 1.25
"""A loop that is blocked for longer is reported. Shorter than any block that a client notices."""
PACE_SECONDS = 10.0
"""Between two reports: the stacks of all threads may be thousands of lines."""
_TICK_SECONDS = 0.25
_log = logging.getLogger("fanline.handlers")


def stack_of(task: asyncio.Future[Any], thread: int | None) -> str:
    """Where a call is, the innermost line last. `thread`: the identifier of the one that runs it, if one does."""
    if thread is not None:
        frame = sys._current_frames().get(thread)  # noqa: SLF001  # documented, and there is nothing else
        return "".join(traceback.format_stack(frame))
    frames = list(_frames(task.get_coro())) if isinstance(task, asyncio.Task) else []
    return "".join(traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format())


def _frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, and of what it awaits: `Task.get_stack` has only the outermost one."""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


async def watch_loop(hang_seconds: float) -> None:
    """Report, forever, when the loop is blocked. The stacks of all threads then go to stderr, from a thread that needs
    no Python, so that they appear even if the loop never runs again. `hang_seconds`: after which the process is killed;
    a block that may last that long is reported however recent the last report was.
    """
    loop, quiet_until = asyncio.get_running_loop(), -math.inf
    while True:
        before = loop.time()
        patience = max(BLOCKED_SECONDS, min(quiet_until - before, hang_seconds / 2))
        faulthandler.dump_traceback_later(patience, file=sys.stderr)
        await asyncio.sleep(_TICK_SECONDS)
        seconds = loop.time() - before
        if seconds > patience:
            quiet_until = loop.time() + PACE_SECONDS
            _log.error("a handler has blocked the loop for %.1f s; the stacks above show where", seconds)
