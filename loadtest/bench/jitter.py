"""The bench of a bad network: everybody's connection is cut again and again while messages are published."""

import random
import secrets
import time

from fanline.loadtest.bench.crowd import Crowd
from fanline.loadtest.bench.durable import PATIENCE_SECONDS, DurableFigures, Start, crowd_counts, ranks, started
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import resident_kb
from fanline.loadtest.bench.plan import Plan

AWAY_SECONDS = (0.2, 2.0)
EVERY_SECONDS = 15.0
"""Each connection is cut about so often."""
_STEP_SECONDS = 0.05


class JitterFigures(DurableFigures, frozen=True, kw_only=True):
    """Seconds from a subscriber's attempt to come back until it had everything it had missed."""

    seed: int
    cuts: int
    p50: float
    p99: float
    max: float
    settled: float
    """Seconds from the end of publishing until everybody had everything."""
    gaps: int


def measure_jitter(start: Start, plan: Plan) -> JitterFigures:
    """Publish while connections are cut at random, then wait until everybody has everything. Raises BenchError."""
    seed = secrets.randbits(32)
    rng = random.Random(seed)  # noqa: S311  # a fault, not a secret
    with started(start, plan) as (side, place, requests):
        channels = [plan.channel % (number % plan.channels) for number in range(plan.subscribers)]
        with Crowd(place, channels) as crowd:
            crowd.watch(requests.socket, requests.read)
            people = crowd.subscribers
            for first in range(0, len(people), 500):  # not more at once than a listen queue holds
                crowd.connect(people[first : first + 500])
                if not crowd.run(PATIENCE_SECONDS, lambda: all(each.live for each in people if each.link)):
                    raise BenchError(f"not all were subscribed within {PATIENCE_SECONDS:g} s")
            for subscriber in people:
                subscriber.waits.clear()
            requests.counts()
            for publisher in side.publishers:
                publisher.send("go")
            cuts = _cut_for(crowd, plan.seconds, rng)
            ended = time.monotonic()
            crowd.run(PATIENCE_SECONDS, lambda: all(each.live and each.next == plan.expected for each in people))
            settled = time.monotonic() - ended
            p50, p99, most = ranks([wait for each in people for wait in each.waits], (0.5, 0.99, 1.0))
            counts = crowd_counts(crowd, plan, requests.counts(), resident_kb(side.pids, "VmHWM"))
            return JitterFigures(**counts, seed=seed, cuts=cuts, p50=p50, p99=p99, max=most, settled=settled)


def _cut_for(crowd: Crowd, seconds: float, rng: random.Random) -> int:
    """Cut each connection every EVERY_SECONDS or so, spread evenly; how many cuts that were."""
    deadline, cuts = time.monotonic() + seconds, 0
    share = _STEP_SECONDS / min(EVERY_SECONDS, seconds)
    while time.monotonic() < deadline:
        crowd.run(_STEP_SECONDS)
        for subscriber in rng.sample(crowd.subscribers, max(1, round(len(crowd.subscribers) * share))):
            if subscriber.live:
                crowd.cut(subscriber, rng.uniform(*AWAY_SECONDS))
                cuts += 1
    return cuts
