"""A report as a table of text."""

from collections.abc import Iterator, Sequence

from fanline.loadtest.bench.benches import BENCHES, AnyFigures, Report, spread
from fanline.loadtest.bench.machine import Machine
from fanline.loadtest.bench.plan import ManyTasksPlan, Plan, PresencePlan, TaskPlan

_TRAFFIC = (
    ("CPU µs/delivery", "cpu_us_per_delivery", ".3f"),
    ("deliveries/s", "deliveries_per_second", ",.0f"),
    ("p50 ms", "p50", ".2f"),
    ("p90 ms", "p90", ".2f"),
    ("p99 ms", "p99", ".2f"),
    ("max ms", "max", ".2f"),
    ("bytes/delivery", "bytes_per_delivery", ".0f"),
    ("receivers' CPU %", "receivers_cpu_percent", ".0f"),
    ("publishing s", "publish_seconds", ".2f"),
)
_ALWAYS = (
    ("CPU %", "cpu_percent", ".2f"),
    ("KB/connection", "kb_per_connection", ".2f"),
    ("peak RSS MB", "peak_kb", ".0f"),
    ("handshakes/s", "handshakes_per_second", ",.0f"),
    ("CPU µs/handshake", "cpu_us_per_handshake", ".0f"),
)
_CALLS = (
    ("calls/s", "calls_per_second", ".0f"),
    ("worker µs/call", "worker_us_per_call", ",.0f"),
    ("control µs/call", "control_us_per_call", ",.0f"),
    ("nats µs/call", "nats_us_per_call", ",.0f"),
)
_JOIN = (
    ("alone p50 ms", "alone", ".2f"),
    ("p50 ms", "p50", ".2f"),
    ("p90 ms", "p90", ".2f"),
    ("p99 ms", "p99", ".2f"),
    ("max ms", "max", ".2f"),
    ("CPU µs/join", "cpu_us_per_join", ",.0f"),
)
_LONG_JOINS = (
    ("live p50 ms", "p50", ".2f"),
    ("live p99 ms", "p99", ".2f"),
    ("live max ms", "max", ".2f"),
    ("live messages", "live", ",.0f"),
    ("all joined s", "joined", ".2f"),
    ("CPU s", "cpu_seconds", ".2f"),
)
_RESUME = (
    ("cut off", "cut_off", ",.0f"),
    ("50 % back s", "half", ".2f"),
    ("95 % back s", "most", ".2f"),
    ("100 % back s", "last", ".2f"),
    ("gaps", "gaps", ",.0f"),
)
_JITTER = (
    ("cuts", "cuts", ",.0f"),
    ("caught up p50 s", "p50", ".3f"),
    ("caught up p99 s", "p99", ".3f"),
    ("caught up max s", "max", ".3f"),
    ("all settled s", "settled", ".2f"),
    ("gaps", "gaps", ",.0f"),
    ("seed", "seed", ".0f"),
)
_TASKS = (
    ("deliveries/s", "deliveries_per_second", ",.0f"),
    ("workers' CPU %", "cpu_percent", ".0f"),
    ("CPU µs/delivery", "cpu_us_per_delivery", ".3f"),
    ("line p50 ms", "p50", ".2f"),
    ("line p99 ms", "p99", ".2f"),
    ("line max ms", "max", ".2f"),
    ("viewers' CPU %", "receivers_cpu_percent", ".0f"),
    ("peak RSS MB", "peak_kb", ".0f"),
    ("progress, fast %", "fast_share", ".1f"),
    ("progress, slow %", "slow_share", ".1f"),
    ("progress, slow", "slow_progress", ",.0f"),
)
_MANY_TASKS = (
    ("CPU µs/event", "cpu_us_per_event", ".1f"),
    ("CPU µs/delivery", "cpu_us_per_delivery", ".1f"),
    ("nats CPU µs/event", "nats_us_per_event", ".1f"),
    ("events/s", "events_per_second", ",.0f"),
    ("deliveries/s", "deliveries_per_second", ",.0f"),
    ("p50 ms", "p50", ".2f"),
    ("p90 ms", "p90", ".2f"),
    ("p99 ms", "p99", ".2f"),
    ("max ms", "max", ".2f"),
    ("CPU %", "cpu_percent", ".1f"),
    ("nats-server CPU %", "nats_cpu_percent", ".1f"),
    ("viewers' CPU %", "receivers_cpu_percent", ".1f"),
    ("publisher's CPU %", "publisher_cpu_percent", ".1f"),
    ("publishing s", "publish_seconds", ".2f"),
    ("progress %", "progress_percent", ".1f"),
    ("joins/s", "handshakes_per_second", ",.0f"),
    ("KB/viewer", "kb_per_connection", ".2f"),
    ("peak RSS MB", "peak_kb", ".0f"),
)
_PRESENCE = (
    ("first query ms", "first", ".1f"),
    ("query p50 ms", "p50", ".2f"),
    ("query p99 ms", "p99", ".2f"),
    ("... in the storm", "storm_p99", ".2f"),
    ("others' p99 ms", "quiet", ".2f"),
    ("... dull storm", "dull", ".2f"),
    ("... in the storm", "storm", ".2f"),
    ("CPU µs/change", "storm_cpu", ".0f"),
    ("... if dull", "dull_cpu", ".0f"),
    ("changes/s", "changes", ",.0f"),
    ("right after s", "right", ".1f"),
    ("users left", "left", ",.0f"),
)
_DURABLE = (("JetStream requests", "requests", ",.0f"), ("peak RSS MB", "peak_kb", ".0f"))
_CHECKS = ("deliveries", "lost", "duplicated", "reordered", "closed", "fault_count")


def table(report: Report, where: Machine) -> str:
    """The medians of all sides, one column each, followed by the ratios and the machine."""
    return "\n".join((*_head(report), *_rows(report), *_checks(report), *_ratios(report), _machine(where)))


def _head(report: Report) -> Iterator[str]:
    plan = report.plan
    yield f"{report.bench}: {BENCHES[report.bench].what}"
    settings = "".join(f", {name}={value}" for name, value in plan.environment.items())
    rounds = f", median of {len(report.rounds)} rounds" if len(report.rounds) > 1 else ""
    workers = f"{plan.workers} worker" + ("s" if plan.workers > 1 else "")
    yield f"{_shape(plan)}, {workers}{settings}{rounds}"
    yield ""
    yield _line("", list(report.rounds[0]))


def _shape(plan: Plan) -> str:
    """Who subscribes to what, and what is published."""
    if isinstance(plan, PresencePlan):
        return f"{plan.subscribers:,} users, {plan.rate:,.0f} joins and leaves a second for {plan.seconds:g} s"
    if isinstance(plan, ManyTasksPlan):
        rate = f"from {plan.rate:,.0f} events/s on" if plan.most else f"{plan.rate:,.0f} events/s"
        return f"{plan.channels:,} tasks, {plan.subscribers:,} viewers, {rate} for {plan.seconds:g} s"
    shape = f"{plan.subscribers:,} subscribers, channels: {plan.channels:,}"
    if isinstance(plan, TaskPlan):
        events = f"{plan.progress:g} progress events/s and {plan.lines:g} lines/s for {plan.seconds:g} s"
        return f"{shape}, {plan.slow} of them slow, {events}"
    return f"{shape}, {plan.rate:,.0f} messages/s for {plan.seconds:g} s" if plan.count else shape


def _rows(report: Report) -> Iterator[str]:
    for title, field, form in _titles(report):
        scale = 1024 if field == "peak_kb" else 1
        yield _line(title, [_median(figures, field, form, scale) for figures in _columns(report)])


def _titles(report: Report) -> tuple[tuple[str, str, str], ...]:
    of_bench = {
        "join": _JOIN + _DURABLE,
        "long-joins": _LONG_JOINS + _DURABLE,
        "resume": _RESUME + _DURABLE,
        "jitter": _JITTER + _DURABLE,
        "tasks": _TASKS,
        "many-tasks": _MANY_TASKS,
        "presence": _PRESENCE,
        "api": _TRAFFIC + _ALWAYS + _CALLS,
    }
    return of_bench.get(report.bench) or (_TRAFFIC if report.plan.count else ()) + _ALWAYS


def _median(figures: Sequence[AnyFigures], field: str, form: str, scale: int) -> str:
    values = [getattr(one, field, None) for one in figures]
    known = [value / scale for value in values if value is not None]
    return format(spread(known).median, form) if known else "-"


def _checks(report: Report) -> Iterator[str]:
    known = [name for name in _CHECKS if hasattr(next(iter(report.rounds[0].values())), name)]
    for name in known:
        yield _line(name, [f"{sum(getattr(one, name, 0) for one in figures):,}" for figures in _columns(report)])
    for figures in report.rounds:
        yield from (f"wrong: {fault}" for one in figures.values() for fault in getattr(one, "faults", ()))
        yield from (note for one in figures.values() for note in getattr(one, "notes", ()))
    for side in report.rounds[0]:
        for ended in (getattr(sides[side], "stalled", None) for sides in report.rounds):
            if ended:
                yield f"stopped reading: {ended.closed} closed, {ended.cut} cut off, {ended.open} still open"


def _ratios(report: Report) -> Iterator[str]:
    for ratio in report.ratios:
        found = ratio.spread
        yield f"{ratio.figure} to {ratio.to}: {found.median:.2f} x ({found.low:.2f}-{found.high:.2f})"


def _machine(where: Machine) -> str:
    return (
        f"{where.cpu}, {where.cores} cores, Linux {where.kernel}, Python {where.python}, "
        f"load average before: {where.load_average:.2f}"
    )


def _columns(report: Report) -> list[list[AnyFigures]]:
    return [[sides[side] for sides in report.rounds] for side in report.rounds[0]]


def _line(title: str, cells: Sequence[str]) -> str:
    return f"{title:<18}" + "".join(f"{cell:>14}" for cell in cells)
