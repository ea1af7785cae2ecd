"""`health`: whether the server does its work, tested rather than inferred.

NATS is asked, every worker over NATS, and a canary (canary.py) takes the way of the messages to clients. Every slot of
this server has to have a worker that answers, whether or not one counts as live; one that is being replaced has the
time that a start takes. Other servers do not count: if they did, one that fails would get all of them restarted, or
taken out of service. `cluster` reports on them.
"""

from collections.abc import Awaitable, Callable, Collection

import trio
from fastapi import APIRouter, Depends, Response

from fanline.engine.bus.errors import BusError
from fanline.engine.management.statistics import WorkerStatistics
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.management.questions import StatisticsQuestion
from fanline.protocol.nats.names import Bucket
from fanline.workers.control.api.looking import coverage
from fanline.workers.control.api.models import ApiModel, Coverage
from fanline.workers.control.canary import CanaryError, fly
from fanline.workers.control.cluster import Gathered, missing_workers
from fanline.workers.control.http.callers import needing
from fanline.workers.control.http.problems import ApiError
from fanline.workers.control.parts import Parts

router = APIRouter()
_PATIENCE_SECONDS = 4.0
_START_SECONDS = 3.5
"""In which a worker that was replaced has to answer, from the beginning of the check."""
_AGAIN_SECONDS = 0.1


class Check(ApiModel):
    """One test."""

    ok: bool
    seconds: float | None = None
    """The round trip."""
    message: str | None = None
    """What is wrong."""


class Health(ApiModel):
    """Whether the server does its work."""

    healthy: bool
    """NATS, the socket and the workers of this server are; the rest of the cluster is not part of it."""
    nats: Check
    """Something was read from the store."""
    socket: Check
    """A WebSocket was opened to a worker of this server, and was sent a message over NATS."""
    workers: Check
    """All workers that this server should have were found, and have answered over NATS."""
    cluster: Check
    """All live workers of the other servers have answered."""
    coverage: Coverage


@router.get("/health", dependencies=[Depends(needing(ApiRight.METRICS))], responses={503: {"model": Health}})
async def health(parts: Parts, response: Response) -> Health:
    """Whether this server does its work, tested just now; 503 if it does not. `cluster` reports on the others."""
    told: Gathered[WorkerStatistics] | None = None
    checks: dict[str, Check] = {}

    async def ask_workers() -> None:
        nonlocal told
        deadline = trio.current_time() + _START_SECONDS
        told = await _asked(parts)
        if missing := await _missing(parts, told, deadline):
            told = told._replace(missing=sorted({*told.missing, *missing}))
            raise CanaryError(_no_answer(missing))

    async def try_one(name: str, attempt: Callable[[], Awaitable[object]]) -> None:
        checks[name] = await _tried(attempt)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_one, "nats", lambda: parts.bus.kv_get(Bucket.KEYS, "health"))
        nursery.start_soon(try_one, "workers", ask_workers)
        nursery.start_soon(try_one, "socket", lambda: fly(parts.url, parts.cluster))
    healthy = all(check.ok for check in checks.values())
    response.status_code = 200 if healthy else 503
    others = _others(told, parts.cluster.other_workers())
    covered = Coverage(answered=0, missing=[]) if told is None else coverage(told)
    return Health(healthy=healthy, cluster=others, coverage=covered, **checks)


async def _asked(parts: Parts) -> Gathered[WorkerStatistics]:
    """The answers of the whole cluster. No answer at all is a result, too. BusError."""
    try:
        return await parts.cluster.gather(StatisticsQuestion(fresh=False), WorkerStatistics)
    except ApiError:
        return Gathered([], 0, sorted(parts.cluster.other_workers()))


async def _missing(parts: Parts, told: Gathered[WorkerStatistics], deadline: float) -> Collection[str]:
    """The workers of this server that have not answered until `deadline`: they are asked again. BusError."""
    server = parts.cluster.own_server
    own = told._replace(missing=[each for each in told.missing if each not in parts.cluster.other_workers()])
    with trio.move_on_at(deadline):
        while missing := missing_workers({server: parts.settings.workers}, own):
            await trio.sleep(_AGAIN_SECONDS)
            again = StatisticsQuestion(to=server, fresh=False)
            found = await parts.cluster.ask_own(again, WorkerStatistics, parts.settings.workers)
            own = own._replace(bodies=[*own.bodies, *found])
    return missing


def _others(told: Gathered[WorkerStatistics] | None, others: set[str]) -> Check:
    """Whether the workers of the other servers have answered."""
    if told is None:
        return Check(ok=False, message="the workers could not be asked")
    silent = others.intersection(told.missing)
    return Check(ok=not silent, message=_no_answer(silent) if silent else None)


def _no_answer(silent: Collection[str]) -> str:
    return f"no answer from {', '.join(sorted(silent))}"


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
