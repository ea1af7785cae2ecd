"""The bench of one task with very many viewers, some of them slow: all must end with the same, true state."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from fanline.loadtest.bench.durable.subscriber_pool import Endpoint
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.fanout import ANSWER_SECONDS, MAX_CONNECTIONS, OPENING_SECONDS, percentiles
from fanline.loadtest.bench.machine import cpu_seconds, resident_kb
from fanline.loadtest.bench.plan import Plan, TaskPlan
from fanline.loadtest.bench.processes import Tool, options, program, running
from fanline.loadtest.bench.server import Side, StartSide
from fanline.loadtest.bench.tasks.control_client import ControlClient
from fanline.loadtest.bench.tasks.producer import ScriptedProducer
from fanline.loadtest.bench.tasks.record import (
    Truth,
    ViewerRecord,
    faults_of,
    progress_share,
    read_record,
    snapshot_of,
    wrong_truth,
)
from fanline.loadtest.bench.tasks.script import ASK, RESULT, ScriptedEvent, script
from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.messages.commands import CallData, Subscribe
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot

CHANNEL = "task:bench"
PATIENCE_SECONDS = 60.0
REPORTED_FAULTS = 10
_QUIET = (TaskEvent.PROGRESS, TaskEvent.OUTPUT)


class TaskFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run. Times in ms, from the publishing of an output line to its receipt by a fast viewer."""

    subscribers: int
    channels: int = 1
    deliveries: int
    deliveries_per_second: float
    cpu_percent: float
    """The workers' CPU while the task ran, in percent of one core."""
    cpu_us_per_delivery: float
    receivers_cpu_percent: float
    peak_kb: int
    p50: float
    p99: float
    max: float
    slow: int
    slow_progress: float
    """Median number of progress events that a slow viewer got."""
    slow_share: float
    """The same in percent of the events published after it joined."""
    fast_share: float
    fault_count: int
    faults: list[str]
    """The first of the faults."""

    @property
    def complete(self) -> bool:
        return not self.fault_count


def measure_tasks(start: StartSide, plan: Plan) -> TaskFigures:
    """Run the task while its viewers watch, and compare the final state of each with the truth. Raises BenchError."""
    assert isinstance(plan, TaskPlan)
    if plan.subscribers > MAX_CONNECTIONS:
        raise BenchError(f"{MAX_CONNECTIONS} viewers at most")
    events = script(plan.progress, plan.lines, plan.seconds)
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        side = stack.enter_context(start(plan, Path(name)))
        endpoint = Endpoint(int(str(side.receiver["port"])), str(side.receiver["path"]))
        record = Path(name, "record")
        tool = stack.enter_context(running([program("viewers"), *options(_viewers(side, plan, record))]))
        producer = stack.enter_context(ScriptedProducer(CHANNEL, side.nats, side.login))
        approver, late = stack.enter_context(ControlClient(endpoint)), stack.enter_context(ControlClient(endpoint))
        tool.read(OPENING_SECONDS)
        tool.send("join")
        clock, cpu = time.monotonic(), cpu_seconds(side.pids)
        answer = _play(producer, events, approver)
        busy = (cpu_seconds(side.pids) - cpu) / (time.monotonic() - clock)
        result = _result(tool)
        cpu = cpu_seconds(side.pids) - cpu
        late.send(_subscription())
        snapshot = snapshot_of(late.read_until(b'"e":"task_snapshot"'))
        peak = resident_kb(side.pids, "VmHWM")
        viewers = list(read_record(record))
    faults = _faults(viewers, snapshot, events)
    if answer.type != MessageType.OK or len(producer.calls) != 1:
        faults.append(f"the approval was answered {answer.value}, and the producer was asked {producer.calls}")
    shares = _shares(viewers, plan)
    if plan.slow and shares[True] >= shares[False]:
        faults.append(f"slow viewers got {shares[True]:.0%} of the progress, and fast ones {shares[False]:.0%}")
    latency = Counter(dict(result["latency"]))
    p50, p99, most = (us / 1000 for us in percentiles(latency, (0.5, 0.99, 1.0)) or (0, 0, 0))
    return TaskFigures(
        subscribers=plan.subscribers,
        deliveries=result["messages"],
        deliveries_per_second=result["messages"] / max((result["last_us"] - result["first_us"]) / 1e6, 1e-6),
        cpu_percent=busy * 100,
        cpu_us_per_delivery=cpu / max(1, result["messages"]) * 1e6,
        receivers_cpu_percent=result["cpu_us"] / (time.monotonic() - clock) / 1e4,
        peak_kb=peak,
        p50=p50,
        p99=p99,
        max=most,
        slow=plan.slow,
        slow_progress=median(_progress(viewers, slow=True) or [0]),
        slow_share=shares[True] * 100,
        fast_share=shares[False] * 100,
        fault_count=len(faults),
        faults=faults[:REPORTED_FAULTS],
    )


def _viewers(side: Side, plan: TaskPlan, record: Path) -> dict[str, object]:
    known = {key: side.receiver[key] for key in ("port", "path", "subprotocol")}
    own = {
        "subscribe": encode_json(_subscription()).decode(),
        "connections": plan.subscribers,
        "slow": plan.slow,
        "spread_ms": max(1, round(plan.seconds * 500)),
        "record": record,
    }
    return known | own


def _subscription() -> Envelope:
    return Envelope(MessageType.SUB, channel=CHANNEL, id="join", data=Subscribe(snapshot=True).fields())


def _play(producer: ScriptedProducer, events: Sequence[ScriptedEvent], approver: ControlClient) -> Envelope:
    """Publish everything, and approve the question as soon as it is asked. Returns the answer to the approval."""
    begun = time.monotonic()
    asked = next(index for index, each in enumerate(events) if each.event == TaskEvent.ASKED) + 1
    producer.play(events[:asked], begun)
    approval = CallData(ask=ASK).fields()
    approver.send(Envelope(MessageType.CALL, channel=CHANNEL, id="approve", event="approve", data=approval))
    producer.play(events[asked:], begun)
    while not approver.has_unread():
        producer.serve_until(time.monotonic() + 0.05)
    return decode_json(approver.read_until(b'"i":"approve"'))


def _result(tool: Tool) -> dict[str, Any]:
    """The report of the viewers, which arrives once all have read to the end, or on request. Now all read fast."""
    tool.send("read")
    line = tool.read_line(PATIENCE_SECONDS)
    if line is None:
        tool.send("end")
        line = tool.read_line(ANSWER_SECONDS)
    if line is None:
        raise BenchError(f"the viewers said nothing for {ANSWER_SECONDS:g} s")
    return dict(msgspec.json.decode(line))


def _faults(viewers: Sequence[ViewerRecord], snapshot: Snapshot, events: Sequence[ScriptedEvent]) -> list[str]:
    lines = sum(each.event == TaskEvent.OUTPUT for each in events)
    truth = Truth(snapshot, viewers[0].changes, lines)
    changes = [each.event for each in events if each.event not in _QUIET]
    asked = changes.index(TaskEvent.ASKED) + 1
    changes[asked:asked] = [TaskEvent.ANSWERED, TaskEvent.DELIVERED]
    faults = list(wrong_truth(truth, changes, RESULT))
    for viewer in viewers:
        kind = "slow viewer" if viewer.counts.slow else "viewer"
        faults += [f"{kind} {viewer.counts.viewer} {fault}" for fault in faults_of(viewer, truth)]
    return faults


def _progress(viewers: Sequence[ViewerRecord], *, slow: bool) -> list[int]:
    return [viewer.counts.progress for viewer in viewers if viewer.counts.slow is slow]


def _shares(viewers: Sequence[ViewerRecord], plan: TaskPlan) -> dict[bool, float]:
    """Slow or not -> the median share of progress events that these viewers got."""
    total = round(plan.progress * plan.seconds)
    shares: dict[bool, list[float]] = {True: [], False: []}
    for viewer in viewers:
        share = progress_share(viewer, total)
        if share is not None:
            shares[viewer.counts.slow].append(share)
    return {slow: median(found) if found else 0.0 for slow, found in shares.items()}
