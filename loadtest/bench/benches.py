"""The benches: what each one does by default, and which figure is compared."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import msgspec

from fanline.loadtest.bench.api.caller import CALLERS, QUIET
from fanline.loadtest.bench.beside import Disturbances, measure_beside
from fanline.loadtest.bench.durable.figures import DurableFigures
from fanline.loadtest.bench.durable.jitter import measure_jitter
from fanline.loadtest.bench.durable.joins import measure_joins
from fanline.loadtest.bench.durable.long_joins import measure_long_joins
from fanline.loadtest.bench.durable.resume import measure_resume
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.fanout import FanoutFigures, measure_fanout
from fanline.loadtest.bench.floods.flooder import FLOODS
from fanline.loadtest.bench.peers import PEERS
from fanline.loadtest.bench.plan import DURABLE, LongJoinsPlan, ManyTasksPlan, Plan, PresencePlan, TaskPlan
from fanline.loadtest.bench.presence.measure import SECRET, PresenceFigures, measure_presence
from fanline.loadtest.bench.server import StartSide, fanline
from fanline.loadtest.bench.tasks.many import ManyTasksFigures, measure_many_tasks
from fanline.loadtest.bench.tasks.measure import TaskFigures, measure_tasks

OURS = "fanline"


class Bench(msgspec.Struct, frozen=True):
    """One kind of run. `figures` are those whose ratio to another side is reported."""

    what: str
    figures: tuple[str, ...]
    plan: Plan
    has_peers: bool = True
    measure: Callable[[StartSide, Plan], "AnyFigures"] = measure_fanout
    """Measures our side; peers only fan out."""
    beside: Disturbances | None = None


AnyFigures = FanoutFigures | DurableFigures | TaskFigures | ManyTasksFigures | PresenceFigures

BENCHES = {
    "fanout": Bench(
        "all subscribers on one channel", ("cpu_us_per_delivery",), Plan(subscribers=1000, rate=200, seconds=5)
    ),
    "channels": Bench(
        "every subscriber has its own channel",
        ("cpu_us_per_delivery", "handshakes_per_second"),
        Plan(subscribers=5000, channels=5000, rate=10_000, seconds=5),
    ),
    "memory": Bench("idle subscribers", ("kb_per_connection",), Plan(subscribers=9000, seconds=1)),
    "handshake": Bench(
        "opening and subscribing; with --token each subscriber shows one, and the baseline is the same run without",
        ("handshakes_per_second", "cpu_us_per_handshake"),
        Plan(subscribers=5000),
    ),
    "idle": Bench(
        "heartbeats every 30 s",
        ("cpu_percent",),
        Plan(subscribers=9000, seconds=30, environment={"FANLINE_ENGINE_HEARTBEAT": "30"}),
        has_peers=False,
    ),
    "slow": Bench(
        "1 % of the subscribers stop reading; the baseline is the same run without them",
        ("p99",),
        Plan(subscribers=1000, rate=200, seconds=10),
        has_peers=False,
    ),
    "floods": Bench(
        "one client floods the worker in one way after the other; how long the others' messages take meanwhile",
        ("p99",),
        Plan(
            subscribers=500,
            channels=50,
            rate=300,
            seconds=6,
            environment={"FANLINE_ENGINE_TRUSTED_PROXIES": "127.0.0.1"},
        ),
        has_peers=False,
        beside=Disturbances("fanline.loadtest.bench.floods.flooder", tuple(FLOODS)),
    ),
    "api": Bench(
        "200 calls of the management API a second, or 1,000 HTTP connections that say nothing; how long the "
        "messages of WebSockets take meanwhile",
        ("p99",),
        Plan(subscribers=1000, rate=50, seconds=6, environment={"FANLINE_CONTROL": "true"}),
        has_peers=False,
        beside=Disturbances("fanline.loadtest.bench.api.caller", tuple(CALLERS), QUIET),
    ),
    "join": Bench(
        "one join after the other of a durable channel from the start of its history",
        ("p50",),
        Plan(subscribers=500, rate=10_000, seconds=0.1, namespace=DURABLE),
        has_peers=False,
        measure=measure_joins,
    ),
    "long-joins": Bench(
        "several joins of one long history at once over CBOR, and how long other clients' messages take meanwhile",
        ("p99",),
        LongJoinsPlan(subscribers=10, rate=1000, seconds=1, data=64_000, namespace=DURABLE),
        has_peers=False,
        measure=measure_long_joins,
    ),
    "resume": Bench(
        "one worker is killed, and its subscribers come back to what they missed",
        ("most",),
        Plan(subscribers=5000, channels=500, rate=500, seconds=8, workers=2, namespace=DURABLE),
        has_peers=False,
        measure=measure_resume,
    ),
    "jitter": Bench(
        "every connection is cut for 0.2 to 2 s about every 15 s",
        ("p99",),
        Plan(subscribers=10_000, channels=100, rate=100, seconds=30, workers=2, namespace=DURABLE),
        has_peers=False,
        measure=measure_jitter,
    ),
    "tasks": Bench(
        "one task and its viewers, which join while it runs; some read 1 kB/s",
        ("cpu_us_per_delivery",),
        TaskPlan(subscribers=2000, progress=200, lines=50, slow=20, seconds=10, workers=2, namespace="task"),
        has_peers=False,
        measure=measure_tasks,
    ),
    "many-tasks": Bench(
        "many running tasks with a viewer or a few each; with --most, the most events a second that ours keeps up with",
        ("cpu_us_per_delivery",),
        ManyTasksPlan(subscribers=2000, channels=2000, rate=1000, seconds=5, data=36, namespace="task"),
        measure=measure_many_tasks,
    ),
    "presence": Bench(
        "users on one channel, queries, and a storm of joins and leaves beside others; then a worker is killed",
        ("storm",),
        PresencePlan(subscribers=5000, rate=1000, seconds=10, workers=2, environment={"FANLINE_TOKENS_SECRET": SECRET}),
        has_peers=False,
        measure=measure_presence,
    ),
}


class Spread(msgspec.Struct, frozen=True):
    """Median, smallest and largest value over the rounds."""

    median: float
    low: float
    high: float


class Ratio(msgspec.Struct, frozen=True):
    """Our figure divided by another side's, round by round; with a disturbance, divided by the figure without one."""

    figure: str
    to: str
    spread: Spread


class Report(msgspec.Struct, frozen=True):
    """All rounds of one bench."""

    bench: str
    plan: Plan
    rounds: list[dict[str, AnyFigures]]
    """Side -> figures, one map for each round."""
    ratios: list[Ratio]

    @property
    def complete(self) -> bool:
        """Whether nothing was lost, repeated, reordered or closed on our side."""
        return all(figures.complete for sides in self.rounds for side, figures in sides.items() if side not in PEERS)


def run_bench(name: str, plan: Plan, peers: Sequence[str], repeat: int) -> Report:
    """Run `repeat` rounds; in each round, the sides run one after the other. Raises BenchError."""
    bench = BENCHES[name]
    if peers and not bench.has_peers:
        raise BenchError(f"the {name} bench has no peers: leave out --vs")
    sides = dict(_sides(name, plan, peers))
    rounds = [{side: measure() for side, measure in sides.items()} for _ in range(repeat)]
    others = [side for side in sides if side != OURS]
    disturbances = bench.beside.kinds if bench.beside else ()
    pairs = [(side, OURS) if side in disturbances else (OURS, side) for side in others]
    ratios = [
        Ratio(figure if of == OURS else f"{figure} with {of}", to, _ratio(figure, of, to, rounds))
        for of, to in pairs
        for figure in bench.figures
    ]
    return Report(name, plan, rounds, ratios)


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def _sides(name: str, plan: Plan, peers: Sequence[str]) -> Iterator[tuple[str, Callable[[], AnyFigures]]]:
    measure, beside = BENCHES[name].measure, BENCHES[name].beside
    if name == "slow":
        yield "without", partial(measure, fanline, plan)
        plan = msgspec.structs.replace(plan, stalled=max(1, plan.subscribers // 100))
    if plan.tokens:
        yield "without", partial(measure, fanline, msgspec.structs.replace(plan, tokens=False))
    if beside is None:
        yield OURS, partial(measure, fanline, plan)
    else:
        for side, kind in ((OURS, beside.quiet), *((kind, kind) for kind in beside.kinds)):
            yield side, partial(measure_beside, beside.program, kind, fanline, plan)
    for peer in peers:
        yield peer, partial(measure_fanout, PEERS[peer], plan)


def _ratio(figure: str, of: str, to: str, rounds: Sequence[dict[str, AnyFigures]]) -> Spread:
    pairs = [(getattr(sides[of], figure), getattr(sides[to], figure)) for sides in rounds]
    return spread([ours / theirs if theirs else math.inf for ours, theirs in pairs])
