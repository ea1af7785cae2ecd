"""The bench of many tasks with a few viewers each: the cost of an event, and the highest rate that a server bears."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from fanline.loadtest.bench.fanout import percentiles
from fanline.loadtest.bench.machine import resident_kb
from fanline.loadtest.bench.plan import ManyTasksPlan, Plan
from fanline.loadtest.bench.server import StartSide
from fanline.loadtest.bench.tasks.final_state import state_faults
from fanline.loadtest.bench.tasks.record import read_record
from fanline.loadtest.bench.tasks.watched_tasks import Round, WatchedTasks

REPORTED_FAULTS = 10
WARM_UP_SECONDS = 1.0
MOST_TRIES = 9
"""Rates to try when searching for the highest rate."""
CLOSE_ENOUGH = 1.1
"""The search ends when a rate that was too high is at most this many times one that was not."""


class ManyTasksFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run. Times in ms, from the publishing of an event to its receipt."""

    subscribers: int
    channels: int
    deliveries: int
    deliveries_per_second: float
    events_per_second: float
    """As they were published; with `most`, the highest rate that the server kept up with."""
    cpu_us_per_event: float
    nats_us_per_event: float
    """CPU of nats-server, which is not part of any other figure."""
    cpu_us_per_delivery: float
    cpu_percent: float
    nats_cpu_percent: float
    receivers_cpu_percent: float
    publisher_cpu_percent: float
    publish_seconds: float
    p50: float
    p90: float
    p99: float
    max: float
    handshakes_per_second: float
    """Up to the snapshot of the task."""
    kb_per_connection: float
    """Growth of the server's resident memory from its start to the last join, with the tasks that it folds."""
    peak_kb: int
    progress_percent: float
    """Progress events that arrived; a viewer that is behind gets only the newest."""
    rounds: list[Round]
    """All rates that were tried, in that order."""
    notes: list[str]
    fault_count: int
    faults: list[str]
    """The first of the faults."""

    @property
    def complete(self) -> bool:
        return not self.fault_count


def measure_many_tasks(start: StartSide, plan: Plan) -> ManyTasksFigures:
    """Run the tasks while their viewers watch, and compare the final state of each viewer with what was published.

    Raises BenchError.
    """
    assert isinstance(plan, ManyTasksPlan)
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        side = stack.enter_context(start(plan, Path(name)))
        memory, record = resident_kb(side.pids), Path(name, "record")
        tasks = stack.enter_context(WatchedTasks(side, plan, record))
        memory = resident_kb(side.pids) - memory
        tasks.run(plan.rate, WARM_UP_SECONDS)
        rounds = list(_rounds(tasks, plan))
        tasks.complete()
        peak = resident_kb(side.pids, "VmHWM")
        viewers = list(read_record(record))
    faults = [
        f"viewer {viewer.counts.viewer} {fault}"
        for viewer in viewers
        for fault in state_faults(viewer, viewer.counts.viewer % plan.channels, tasks.work)
    ]
    best = max((each for each in rounds if each.kept_up), key=lambda each: each.rate, default=rounds[-1])
    p50, p90, p99, most = (us / 1000 for us in percentiles(best.latency, (0.5, 0.9, 0.99, 1.0)))
    progress = sum(viewer.counts.progress for viewer in viewers)
    return ManyTasksFigures(
        subscribers=plan.subscribers,
        channels=plan.channels,
        deliveries=best.deliveries,
        deliveries_per_second=best.deliveries / max(best.delivered_seconds, 1e-6),
        events_per_second=best.events / best.published_seconds,
        cpu_us_per_event=best.cpu / best.events * 1e6,
        nats_us_per_event=best.nats_cpu / best.events * 1e6,
        cpu_us_per_delivery=best.cpu / max(1, best.deliveries) * 1e6,
        cpu_percent=best.cpu / best.wall * 100,
        nats_cpu_percent=best.nats_cpu / best.wall * 100,
        receivers_cpu_percent=best.receivers_cpu / best.wall * 100,
        publisher_cpu_percent=best.publisher_cpu / best.wall * 100,
        publish_seconds=best.published_seconds,
        p50=p50,
        p90=p90,
        p99=p99,
        max=most,
        handshakes_per_second=plan.subscribers / tasks.join_seconds,
        kb_per_connection=memory / plan.subscribers,
        peak_kb=peak,
        progress_percent=progress / max(1, tasks.work.progress * plan.subscribers) * 100,
        rounds=rounds,
        notes=[_note(each) for each in rounds if plan.most or not each.kept_up],
        fault_count=len(faults),
        faults=faults[:REPORTED_FAULTS],
    )


def next_rate(tried: Sequence[tuple[float, bool]]) -> float | None:
    """The rate to try after these, each with whether the server kept up; None once the most is known closely enough."""
    best = max((rate for rate, kept_up in tried if kept_up), default=0.0)
    worst = min((rate for rate, kept_up in tried if not kept_up), default=math.inf)
    if len(tried) >= MOST_TRIES or worst <= best * CLOSE_ENOUGH:
        return None
    return best * 2 if worst == math.inf else (best + worst) / 2


def _rounds(tasks: WatchedTasks, plan: ManyTasksPlan) -> Iterator[Round]:
    rate: float | None = plan.rate
    tried = []
    while rate is not None:
        done = tasks.run(rate, plan.seconds)
        yield done
        tried.append((rate, done.kept_up))
        rate = next_rate(tried) if plan.most and done.arrived else None


def _note(done: Round) -> str:
    how = "kept up" if done.kept_up else "did not keep up"
    p99 = percentiles(done.latency, (0.99,)) or [0]
    return (
        f"{done.rate:,.0f} events/s: {how}; published in {done.published_seconds:.2f} s instead of "
        f"{done.events / done.rate:.2f} s, delivered in {done.delivered_seconds:.2f} s; "
        f"{done.cpu / done.events * 1e6:.0f} µs an event, nats-server {done.nats_cpu / done.events * 1e6:.0f} µs; "
        f"CPU of the workers {done.cpu / done.wall:.0%}, of nats-server {done.nats_cpu / done.wall:.0%}; "
        f"p99 {p99[0] / 1000:.1f} ms"
    )
