"""`health`: whether the server does its work, tried rather than concluded.

NATS is asked, every worker over NATS, and a canary (canary.py) takes the way of the messages to clients.
"""

from collections.abc import Awaitable, Callable

import trio
from fastapi import APIRouter, Depends, Response

from fanline.engine.bus.interface import BusError
from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.questions import StatisticsQuestion
from fanline.protocol.nats.names import Bucket
from fanline.workers.control.api.models import ApiModel, Coverage
from fanline.workers.control.callers import needing
from fanline.workers.control.canary import CanaryError, fly
from fanline.workers.control.parts import Parts
from fanline.workers.control.problems import ApiError

router = APIRouter()
_PATIENCE_SECONDS = 4.0


class Check(ApiModel):
    """One thing that was tried."""

    ok: bool
    seconds: float | None = None
    """The round trip."""
    message: str | None = None
    """What is wrong."""


class Health(ApiModel):
    """Whether the server does its work."""

    healthy: bool
    nats: Check
    """Something was read from the store."""
    socket: Check
    """A WebSocket was opened to a worker of this server, and was sent a message over NATS."""
    workers: Check
    """All live workers of the cluster have answered over NATS."""
    coverage: Coverage


@router.get("/health", dependencies=[Depends(needing(ApiRight.METRICS))], responses={503: {"model": Health}})
async def health(parts: Parts, response: Response) -> Health:
    """Whether the server does its work, tried just now; 503 if it does not."""
    covered = Coverage(answered=0, missing=[])
    checks: dict[str, Check] = {}

    async def ask_workers() -> None:
        nonlocal covered
        told = await parts.cluster.gather(StatisticsQuestion(), WorkerStatistics)
        covered = Coverage(answered=told.answered, missing=told.missing)
        if told.missing:
            raise CanaryError(f"no answer from {', '.join(told.missing)}")

    async def try_one(name: str, attempt: Callable[[], Awaitable[object]]) -> None:
        checks[name] = await _tried(attempt)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_one, "nats", lambda: parts.bus.kv_get(Bucket.KEYS, "health"))
        nursery.start_soon(try_one, "workers", ask_workers)
        nursery.start_soon(try_one, "socket", lambda: fly(parts.url, parts.cluster))
    healthy = all(check.ok for check in checks.values())
    response.status_code = 200 if healthy else 503
    return Health(healthy=healthy, coverage=covered, **checks)


async def _tried(attempt: Callable[[], Awaitable[object]]) -> Check:
    begun, message = trio.current_time(), None
    with trio.move_on_after(_PATIENCE_SECONDS) as patience:
        try:
            found = await attempt()
        except (BusError, CanaryError, ApiError) as error:
            message = str(error)
    seconds = round(trio.current_time() - begun, 6)
    if patience.cancelled_caught:
        return Check(ok=False, seconds=seconds, message=f"not done within {_PATIENCE_SECONDS:g} seconds")
    if message is not None:
        return Check(ok=False, seconds=seconds, message=message)
    return Check(ok=True, seconds=round(found, 6) if isinstance(found, float) else seconds)
