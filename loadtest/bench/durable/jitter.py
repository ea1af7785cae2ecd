"""The jitter bench: a bad network, in which every connection is cut again and again while messages are published."""

import random
import secrets
import time

from fanline.loadtest.bench.durable.figures import PATIENCE_SECONDS, DurableFigures, pool_counts, ranks, started
from fanline.loadtest.bench.durable.subscriber_pool import SubscriberPool
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import resident_kb
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.server import StartSide

AWAY_SECONDS = (0.2, 2.0)
EVERY_SECONDS = 15.0
"""The mean time between two cuts of a connection."""
_STEP_SECONDS = 0.05
_AT_ONCE = 500  # connections: no more than fit into a listen queue


class JitterFigures(DurableFigures, frozen=True, kw_only=True):
    """Seconds from a subscriber's attempt to come back until it had everything it had missed."""

    seed: int
    cuts: int
    p50: float
    p99: float
    max: float
    settled: float
    """Seconds from the end of publishing until all subscribers had everything."""
    gaps: int


def measure_jitter(start: StartSide, plan: Plan) -> JitterFigures:
    """Publish while connections are cut at random, then wait until all have everything. Raises BenchError."""
    seed = secrets.randbits(32)
    rng = random.Random(seed)  # noqa: S311  # a fault, not a secret
    with (
        started(start, plan) as (side, endpoint, requests),
        SubscriberPool(endpoint, plan.channel_of_each()) as pool,
    ):
        pool.watch(requests.socket, requests.read)
        _connect_all(pool)
        for subscriber in pool.subscribers:
            subscriber.waits.clear()
        requests.counts()
        for publisher in side.publishers:
            publisher.send("go")
        cuts = _cut_for(pool, plan.seconds, rng)
        ended = time.monotonic()
        pool.run(PATIENCE_SECONDS, lambda: pool.has_everything(plan.expected))
        settled = time.monotonic() - ended
        p50, p99, most = ranks([wait for each in pool.subscribers for wait in each.waits], (0.5, 0.99, 1.0))
        counts = pool_counts(pool, plan, requests.counts(), resident_kb(side.pids, "VmHWM"))
        return JitterFigures(**counts, seed=seed, cuts=cuts, p50=p50, p99=p99, max=most, settled=settled)


def _connect_all(pool: SubscriberPool) -> None:
    for first in range(0, len(pool.subscribers), _AT_ONCE):
        pool.connect(pool.subscribers[first : first + _AT_ONCE])
        if not pool.run(PATIENCE_SECONDS, lambda: all(each.live for each in pool.subscribers if each.connection)):
            raise BenchError(f"not all were subscribed within {PATIENCE_SECONDS:g} s")


def _cut_for(pool: SubscriberPool, seconds: float, rng: random.Random) -> int:
    """Cut each connection about every EVERY_SECONDS, evenly spread; returns the number of cuts."""
    deadline, cuts = time.monotonic() + seconds, 0
    share = _STEP_SECONDS / min(EVERY_SECONDS, seconds)
    while time.monotonic() < deadline:
        pool.run(_STEP_SECONDS)
        for subscriber in rng.sample(pool.subscribers, max(1, round(len(pool.subscribers) * share))):
            if subscriber.live:
                pool.cut(subscriber, rng.uniform(*AWAY_SECONDS))
                cuts += 1
    return cuts
