"""The resume bench: one worker is killed, and its subscribers come back to what they missed."""

import os
import signal
import time

from fanline.loadtest.bench.durable.figures import PATIENCE_SECONDS, DurableFigures, pool_counts, ranks, started
from fanline.loadtest.bench.durable.subscriber_pool import SubscriberPool
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import resident_kb
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.server import StartSide

KILL_AFTER = 0.25
"""Share of the publishing time after which the worker is killed."""


class ResumeFigures(DurableFigures, frozen=True, kw_only=True):
    """Seconds from the kill until the subscribers of the killed worker were live again, with everything missed."""

    cut_off: int
    half: float
    most: float
    """Until 95 % of them were."""
    last: float
    gaps: int
    """`gap` messages."""


def measure_resume(start: StartSide, plan: Plan) -> ResumeFigures:
    """Publish to subscribers of all workers, kill one worker meanwhile, and wait until all subscribers have everything.

    Raises BenchError.
    """
    with (
        started(start, plan) as (side, endpoint, requests),
        SubscriberPool(endpoint, plan.channel_of_each()) as pool,
    ):
        pool.watch(requests.socket, requests.read)
        pool.connect(pool.subscribers)
        if not pool.run(PATIENCE_SECONDS, lambda: pool.all_live):
            raise BenchError(f"not all were subscribed within {PATIENCE_SECONDS:g} s")
        for publisher in side.publishers:
            publisher.send("go")
        pool.run(plan.seconds * KILL_AFTER)
        requests.counts()
        killed = time.monotonic()
        os.kill(side.pids[0], signal.SIGKILL)
        pool.run(plan.seconds + PATIENCE_SECONDS, lambda: pool.has_everything(plan.expected))
        return _figures(pool, plan, killed, requests.counts(), resident_kb(side.pids[1:], "VmHWM"))


def _figures(pool: SubscriberPool, plan: Plan, killed: float, asked: dict[str, int], memory: int) -> ResumeFigures:
    """When each subscriber that lost its connection was back; for one that never was, messages count as lost."""
    back = [each.times[-1] - killed for each in pool.subscribers if len(each.times) > 1]
    half, most, last = ranks(back, (0.5, 0.95, 1.0))
    return ResumeFigures(**pool_counts(pool, plan, asked, memory), cut_off=len(back), half=half, most=most, last=last)
