"""The bench of one task with very many viewers, some of them slow: everybody must end with the truth."""

import select
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Self

import msgspec

from fanline.loadtest.bench.crowd import Place, say, upgrade
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import cpu_seconds, resident_kb
from fanline.loadtest.bench.measure import ANSWER_SECONDS, MAX_CONNECTIONS, OPENING_SECONDS, Start, percentiles
from fanline.loadtest.bench.plan import Plan, TaskPlan
from fanline.loadtest.bench.processes import Tool, options, program, running
from fanline.loadtest.bench.server import Side
from fanline.loadtest.bench.task_producer import ASK, RESULT, Producer, Step, script
from fanline.loadtest.bench.task_record import (
    Truth,
    Viewer,
    faults_of,
    progress_share,
    read_record,
    snapshot_of,
    wrong_truth,
)
from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.websocket.frames import FrameReader, Opcode

CHANNEL = "task:bench"
PATIENCE_SECONDS = 60.0
TOLD_FAULTS = 10
_QUIET = ("task_progress", "task_output")


class TaskFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run showed. Times in ms, from the producer's word to the viewer's read, of output lines of fast ones."""

    subscribers: int
    channels: int = 1
    deliveries: int
    deliveries_per_second: float
    cpu_percent: float
    """The workers' CPU while the task ran, of one core."""
    cpu_us_per_delivery: float
    receivers_cpu_percent: float
    peak_kb: int
    p50: float
    p99: float
    max: float
    slow: int
    slow_progress: float
    """Median of the progress events a slow viewer got."""
    slow_share: float
    """Percent of those said while it was there, median."""
    fast_share: float
    fault_count: int
    faults: list[str]
    """The first of what was not as it must be."""

    @property
    def complete(self) -> bool:
        return not self.fault_count


class Person:
    """One WebSocket that sends a command, and reads for the answer."""

    def __init__(self, place: Place) -> None:
        self._link = socket.create_connection(("127.0.0.1", place.port), PATIENCE_SECONDS)
        self._link.sendall(upgrade(place))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        self._reader = FrameReader(1 << 24, from_client=False)
        self._frames = [frame.payload for frame in self._reader.feed(head.partition(b"\r\n\r\n")[2])]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def say(self, command: Envelope) -> None:
        say(self._link, Opcode.TEXT, encode_json(command))

    def hears(self) -> bool:
        """Whether something has come that was not read yet."""
        return bool(select.select([self._link], [], [], 0)[0])

    def read_until(self, mark: bytes) -> bytes:
        """The next message that contains `mark`."""
        while True:
            while self._frames:
                if mark in (payload := self._frames.pop(0)):
                    return payload
            self._frames += [frame.payload for frame in self._reader.feed(self._receive())]

    def _receive(self) -> bytes:
        if not (data := self._link.recv(1 << 20)):
            raise BenchError("the server closed the connection of the one who answers")
        return data


def measure_tasks(start: Start, plan: Plan) -> TaskFigures:
    """Run the task before its viewers, and compare what each has come to with the truth. Raises BenchError."""
    assert isinstance(plan, TaskPlan)
    if plan.subscribers > MAX_CONNECTIONS:
        raise BenchError(f"{MAX_CONNECTIONS} viewers at most")
    steps = script(plan.progress, plan.lines, plan.seconds)
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        side = stack.enter_context(start(plan, Path(name)))
        place = Place(int(str(side.receiver["port"])), str(side.receiver["path"]))
        record = Path(name, "record")
        tool = stack.enter_context(running([program("viewers"), *options(_viewers(side, plan, record))]))
        producer = stack.enter_context(Producer(CHANNEL, side.nats, side.token))
        approver, late = stack.enter_context(Person(place)), stack.enter_context(Person(place))
        tool.read(OPENING_SECONDS)
        tool.send("join")
        clock, cpu = time.monotonic(), cpu_seconds(side.pids)
        answer = _play(producer, steps, approver)
        busy = (cpu_seconds(side.pids) - cpu) / (time.monotonic() - clock)
        result = _result(tool)
        cpu = cpu_seconds(side.pids) - cpu
        late.say(_watch())
        snapshot = snapshot_of(late.read_until(b'"e":"task_snapshot"'))
        peak = resident_kb(side.pids, "VmHWM")
        viewers = list(read_record(record))
    faults = _faults(viewers, snapshot, steps)
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
        faults=faults[:TOLD_FAULTS],
    )


def _viewers(side: Side, plan: TaskPlan, record: Path) -> dict[str, object]:
    known = {key: side.receiver[key] for key in ("port", "path", "subprotocol")}
    own = {
        "subscribe": encode_json(_watch()).decode(),
        "connections": plan.subscribers,
        "slow": plan.slow,
        "spread_ms": max(1, round(plan.seconds * 500)),
        "record": record,
    }
    return known | own


def _watch() -> Envelope:
    return Envelope(MessageType.SUB, channel=CHANNEL, id="join", data={"snapshot": True})


def _play(producer: Producer, steps: Sequence[Step], approver: Person) -> Envelope:
    """Say everything; the question is answered as soon as it is asked. The answer to that answer."""
    begun = time.monotonic()
    asked = next(index for index, step in enumerate(steps) if step.event == "task_confirmation_required") + 1
    producer.play(steps[:asked], begun)
    approver.say(Envelope(MessageType.CALL, channel=CHANNEL, id="approve", event="approve", data={"ask": ASK}))
    producer.play(steps[asked:], begun)
    while not approver.hears():
        producer.serve_until(time.monotonic() + 0.05)
    return decode_json(approver.read_until(b'"i":"approve"'))


def _result(tool: Tool) -> dict[str, Any]:
    """The slow viewers read on, and all report: by themselves at their end, else when they are told."""
    tool.send("read")
    line = tool.read_line(PATIENCE_SECONDS)
    if line is None:
        tool.send("end")
        line = tool.read_line(ANSWER_SECONDS)
    if line is None:
        raise BenchError(f"the viewers said nothing for {ANSWER_SECONDS:g} s")
    return dict(msgspec.json.decode(line))


def _faults(viewers: Sequence[Viewer], snapshot: Snapshot, steps: Sequence[Step]) -> list[str]:
    lines = sum(step.event == "task_output" for step in steps)
    truth = Truth(snapshot, viewers[0].changes, lines)
    said = [step.event for step in steps if step.event not in _QUIET]
    said.insert(said.index("task_confirmation_required") + 1, "task_input")
    faults = list(wrong_truth(truth, said, RESULT))
    for viewer in viewers:
        kind = "slow viewer" if viewer.counts.slow else "viewer"
        faults += [f"{kind} {viewer.counts.viewer} {fault}" for fault in faults_of(viewer, truth)]
    return faults


def _progress(viewers: Sequence[Viewer], *, slow: bool) -> list[int]:
    return [viewer.counts.progress for viewer in viewers if viewer.counts.slow is slow]


def _shares(viewers: Sequence[Viewer], plan: TaskPlan) -> dict[bool, float]:
    """Slow or not -> median of the share of progress events they got."""
    total = round(plan.progress * plan.seconds)
    shares: dict[bool, list[float]] = {True: [], False: []}
    for viewer in viewers:
        share = progress_share(viewer, total)
        if share is not None:
            shares[viewer.counts.slow].append(share)
    return {slow: median(found) if found else 0.0 for slow, found in shares.items()}
