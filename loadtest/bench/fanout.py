"""One run against one side, and its figures: connecting, subscribing, and messages to all subscribers."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from fanline.loadtest.bench.machine import cpu_seconds, resident_kb
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.processes import Tool, options, program, running
from fanline.loadtest.bench.server import Side, StartSide

OPENING_SECONDS = 120.0
SETTLE_SECONDS = 0.5
CATCH_UP_SECONDS = 20.0
ANSWER_SECONDS = 30.0
MAX_CONNECTIONS = 9000  # of one receiver: a process may have 20,000 open files


class Stalled(msgspec.Struct, frozen=True):
    """How the connections that stopped reading ended."""

    open: int
    cut: int
    """Closed without a readable close frame."""
    closed: int
    """Closed with a close frame."""


class FanoutFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run. Times in ms unless the name says otherwise; None for what the run does not measure."""

    subscribers: int
    channels: int
    deliveries: int
    lost: int
    duplicated: int
    reordered: int
    closed: int
    """Connections that were closed although they kept reading."""
    handshakes_per_second: float
    """Up to the answer to the subscription."""
    cpu_us_per_handshake: float
    kb_per_connection: float
    """Growth of the server's resident memory."""
    cpu_percent: float
    """The server's CPU over the measured window, in percent of one core."""
    peak_kb: int
    """The server's peak of resident memory."""
    cpu_us_per_delivery: float | None = None
    deliveries_per_second: float | None = None
    bytes_per_delivery: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None
    publish_seconds: float | None = None
    receivers_cpu_percent: float | None = None
    """At 100 or more, the receivers limit the run."""
    worker_us_per_call: float | None = None
    control_us_per_call: float | None = None
    nats_us_per_call: float | None = None
    """CPU of each process for one call of the management API, while no messages are published."""
    calls_per_second: float | None = None
    """Calls that were answered while messages were published."""
    stalled: Stalled | None = None

    @property
    def complete(self) -> bool:
        """Everything arrived once and in order, and no connection that reads was closed."""
        return not (self.lost or self.duplicated or self.reordered or self.closed)


Around = Callable[[Side], AbstractContextManager[None]]
"""What else happens to the side while messages are published."""


def measure_fanout(start: StartSide, plan: Plan, around: Around = lambda _: nullcontext()) -> FanoutFigures:
    """Start the side, connect all subscribers, publish, and check what arrived. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        side = stack.enter_context(start(plan, Path(name)))
        memory, cpu = resident_kb(side.pids), cpu_seconds(side.pids)
        receivers = [stack.enter_context(_receiver(side, plan, first)) for first in _firsts(plan)]
        opened = [tool.read(OPENING_SECONDS) for tool in receivers]
        cpu_opening = cpu_seconds(side.pids) - cpu
        time.sleep(SETTLE_SECONDS)
        memory = resident_kb(side.pids) - memory
        with around(side):
            clock, cpu = time.monotonic(), cpu_seconds(side.pids)
            published = _publish(side, plan)
            results = _results(receivers, CATCH_UP_SECONDS if plan.count else 0.0)
            cpu, window = cpu_seconds(side.pids) - cpu, time.monotonic() - clock
        return FanoutFigures(
            subscribers=plan.subscribers,
            channels=plan.channels,
            deliveries=_total(results, "messages"),
            lost=_total(results, "lost"),
            duplicated=_total(results, "duplicated"),
            reordered=_total(results, "reordered"),
            closed=_total(results, "closed"),
            handshakes_per_second=plan.subscribers / max(answer["seconds"] for answer in opened),
            cpu_us_per_handshake=cpu_opening / plan.subscribers * 1e6,
            kb_per_connection=memory / plan.subscribers,
            cpu_percent=cpu / window * 100,
            peak_kb=resident_kb(side.pids, "VmHWM"),
            publish_seconds=published,
            stalled=msgspec.convert(results[0]["stalled"], Stalled) if plan.stalled else None,
            **_delivery(results, cpu, window),
        )


@contextmanager
def _receiver(side: Side, plan: Plan, first: int) -> Iterator[Tool]:
    """The receiver of the connections from `first` on. Only the first receiver has stalled ones."""
    own = {
        "connections": min(MAX_CONNECTIONS, plan.subscribers - first),
        "first": first,
        "channels": plan.channels,
        "expect": plan.expected,
        "stalled": 0 if first else plan.stalled,
    }
    with running([program("receiver"), *options(side.receiver | own)]) as tool:
        yield tool


def _firsts(plan: Plan) -> range:
    return range(0, plan.subscribers, MAX_CONNECTIONS)


def _publish(side: Side, plan: Plan) -> float | None:
    """Run the plan's traffic, or wait if it has none. Returns how long publishing took, in seconds."""
    if not plan.count:
        time.sleep(plan.seconds)
        return None
    for publisher in side.publishers:
        publisher.send("go")
    times: list[float] = [tool.read(plan.seconds * 4 + ANSWER_SECONDS)["seconds"] for tool in side.publishers]
    return max(times)


def _results(receivers: Sequence[Tool], patience: float) -> list[dict[str, Any]]:
    """The receivers' reports, which arrive once they have everything, or on our request after `patience` seconds."""
    deadline = time.monotonic() + patience
    lines = [tool.read_line(max(0.0, deadline - time.monotonic())) for tool in receivers]
    for tool, line in zip(receivers, lines, strict=True):
        if line is None:
            tool.send("end")
    return [
        msgspec.json.decode(line) if line else tool.read(ANSWER_SECONDS)
        for tool, line in zip(receivers, lines, strict=True)
    ]


def _delivery(results: Sequence[Mapping[str, Any]], cpu: float, window: float) -> dict[str, Any]:
    """The figures that only a run with messages has."""
    deliveries = _total(results, "messages")
    if not deliveries:
        return {}
    first = min(result["first_us"] for result in results if result["messages"])
    last = max(result["last_us"] for result in results)
    latency = sum((Counter(dict(result["latency"])) for result in results), Counter[int]())
    p50, p90, p99, most = percentiles(latency, (0.5, 0.9, 0.99, 1.0))
    return {
        "cpu_us_per_delivery": cpu / deliveries * 1e6,
        "deliveries_per_second": deliveries / max((last - first) / 1e6, 1e-6),
        "bytes_per_delivery": _total(results, "bytes") / deliveries,
        "receivers_cpu_percent": _total(results, "cpu_us") / window / 1e4,
        "p50": p50 / 1000,
        "p90": p90 / 1000,
        "p99": p99 / 1000,
        "max": most / 1000,
    }


def percentiles(histogram: Mapping[int, int], ranks: Sequence[float]) -> list[int]:
    """For each share (0 to 1, ascending), the smallest value that at least this share does not exceed."""
    total, below = sum(histogram.values()), 0
    found: list[int] = []
    for value, count in sorted(histogram.items()):
        below += count
        while len(found) < len(ranks) and below >= ranks[len(found)] * total:
            found.append(value)
    return found


def _total(results: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(result[name] for result in results)
