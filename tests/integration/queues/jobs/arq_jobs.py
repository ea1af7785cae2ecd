"""What the worker of the tests of arq runs, and how they reach it."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from arq import Retry, create_pool, func
from arq.connections import ArqRedis, RedisSettings

import fanline
import fanline.arq


async def fine(ctx: dict[str, Any], count: int) -> int:
    task = fanline.current_task()
    assert isinstance(task, fanline.AsyncTask)
    for _ in task.track(range(count)):
        await task.log("line")
    return count


async def bad(ctx: dict[str, Any]) -> None:
    raise ValueError("bad input")


async def again(ctx: dict[str, Any]) -> str:
    if ctx["job_try"] == 1:
        raise Retry(defer=0.2)
    return "at last"


async def sleep(ctx: dict[str, Any]) -> None:
    task = fanline.current_task()
    assert task is not None
    task.log("begun")
    await asyncio.sleep(300)


class WorkerSettings:
    """For `arq`."""

    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://127.0.0.1:1"))
    functions: ClassVar[Any] = [fine, bad, again, sleep, func(sleep, name="limited", timeout=1)]
    allow_abort_jobs = True
    poll_delay = 0.05
    handle_signals = True


fanline.arq.install(WorkerSettings)


def with_pool(url: str, act: Callable[[ArqRedis], Awaitable[Any]]) -> Any:
    """What `act` returns, with an event loop and a pool of its own."""

    async def main() -> Any:
        pool = fanline.arq.install(await create_pool(RedisSettings.from_dsn(url)))
        try:
            return await act(pool)
        finally:
            await pool.aclose()

    return asyncio.run(main())
