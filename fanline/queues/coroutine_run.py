"""A run whose job is a coroutine, under asyncio or Trio. A viewer's cancel ends it as it ends a `fanline.Task`."""

from collections.abc import Awaitable, Callable
from typing import Any

from fanline.producer.calls import TaskCancelled
from fanline.producer.waiting import enter_body, is_cancellation, wait_at_most
from fanline.queues.job_run import JobRun

EndOf = Callable[[BaseException], BaseException | None]
"""How the run ended, by what its job raised; None: it is not known yet, and will be reported later."""


async def perform(run: JobRun, work: Callable[[], Awaitable[Any]], end_of: EndOf) -> Any:
    """Do the work, and report how it ended. Returns or raises what the work does; TaskCancelled if a viewer has
    cancelled it.
    """
    body = enter_body()
    run.on_cancel(TaskCancelled, body.cancel_soon)
    try:
        result = await work()
    except BaseException as error:
        if body.leave(error):
            cancelled = run.cancelled or TaskCancelled()
            await wait_at_most(run.finish(cancelled), run.linger)
            raise cancelled from None
        await _report(run, error, end_of(error))
        raise
    body.leave(None)
    await wait_at_most(run.finish(result=result), run.linger)
    return result


async def _report(run: JobRun, error: BaseException, end: BaseException | None) -> None:
    if end is None:
        return
    stored = run.finish(end)
    if not is_cancellation(error):  # otherwise nothing may be waited for
        await wait_at_most(stored, run.linger)
