"""Many running tasks with their viewers: rounds of events, each measured, until all tasks are completed."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import msgspec

from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.fanout import ANSWER_SECONDS, MAX_CONNECTIONS, OPENING_SECONDS, SETTLE_SECONDS
from fanline.loadtest.bench.machine import cpu_seconds
from fanline.loadtest.bench.plan import ManyTasksPlan
from fanline.loadtest.bench.processes import options, program, running
from fanline.loadtest.bench.server import Side, log_in
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.messages.commands import Subscribe
from fanline.protocol.nats.names import MESSAGE_ID, producer_store_id
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import TaskEvent

LINES_EVERY = 5
"""Every fifth event of a task is output, the others are progress."""
TITLE = "Task %s"
TOTAL = 1000
"""What the tasks say that they have to do."""
_SETUP_RATE = 5000.0  # tasks started, or completed, a second
_CATCH_UP_SECONDS = 30.0
_LATE = 1.05  # a round that takes longer than this, to its time, has not kept up
_NAME = "$C"  # stands for the number of a task (native/task_publisher.c)
_NUMBER = "$N"  # for how many events of the kind a task had before
_STAMP = "$S"
_CHANNEL = f"task:{_NAME}"


class TaskWork(NamedTuple):
    """The events of one task, so far; all tasks have the same."""

    progress: int = 0
    lines: int = 0

    @property
    def events(self) -> int:
        return self.progress + self.lines

    def after(self, events: int) -> "TaskWork":
        """With further events."""
        lines = (self.events + events) // LINES_EVERY
        return TaskWork(self.events + events - lines, lines)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """Events at one rate, and what they cost. CPU times in seconds, latency in ms."""

    rate: float
    """Events a second, over all tasks, that were to be published."""
    events: int
    published_seconds: float
    """From the first publish to the last acknowledgement of JetStream."""
    delivered_seconds: float
    """From the first receipt of an event to the last."""
    deliveries: int
    wall: float
    cpu: float
    nats_cpu: float
    receivers_cpu: float
    publisher_cpu: float
    latency: dict[int, int]
    """Microseconds -> deliveries."""
    arrived: bool
    """Every viewer has what the newest events say."""

    @property
    def kept_up(self) -> bool:
        """Published at the promised rate, and delivered at that rate, too."""
        longest = self.events / self.rate * _LATE + 0.05
        return self.arrived and max(self.published_seconds, self.delivered_seconds) <= longest


class WatchedTasks:
    """A publisher of all tasks, and a process with all viewers. Each viewer has joined a running task."""

    def __init__(self, side: Side, plan: ManyTasksPlan, record: Path) -> None:
        if plan.subscribers > MAX_CONNECTIONS:
            raise BenchError(f"{MAX_CONNECTIONS} viewers at most")
        self.work = TaskWork()
        self.join_seconds = 0.0
        self._side, self._plan = side, plan
        self._record = record

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._publisher = stack.enter_context(
                running([program("task_publisher"), *options(_events(self._side, self._plan.channels))])
            )
            log_in(self._publisher, self._side.login)
            self._publish("started", _SETUP_RATE, self._plan.channels)
            self._viewers = stack.enter_context(running([program("task_viewers"), *options(self._watching())]))
            self.join_seconds = self._viewers.read(OPENING_SECONDS)["seconds"]
            time.sleep(SETTLE_SECONDS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, rate: float, seconds: float) -> Round:
        """Publish at `rate`, and wait until every viewer has everything, or no longer can."""
        each = max(1, round(rate * seconds / self._plan.channels))
        self.work = self.work.after(each)
        self._viewers.send(f"expect {self.work.events}")
        clock, cpu, nats_cpu = time.monotonic(), cpu_seconds(self._side.pids), cpu_seconds(self._side.nats_pids)
        published = self._publish("work", rate, each * self._plan.channels)
        seen, arrived = self._seen()
        return Round(
            rate=rate,
            events=published["published"],
            published_seconds=published["seconds"],
            delivered_seconds=(seen["last_us"] - seen["first_us"]) / 1e6,
            deliveries=seen["messages"],
            wall=time.monotonic() - clock,
            cpu=cpu_seconds(self._side.pids) - cpu,
            nats_cpu=cpu_seconds(self._side.nats_pids) - nats_cpu,
            receivers_cpu=seen["cpu_us"] / 1e6,
            publisher_cpu=published["cpu_us"] / 1e6,
            latency=dict(seen["latency"]),
            arrived=arrived,
        )

    def complete(self) -> None:
        """Complete all tasks, and have the record written once every viewer knows."""
        self._viewers.send("end")
        self._publish("completed", _SETUP_RATE, self._plan.channels)
        self._seen()

    def _publish(self, kind: str, rate: float, count: int) -> dict[str, Any]:
        self._publisher.send(f"{kind} {rate:f} {count}")
        return dict(self._publisher.read(4 * count / rate + ANSWER_SECONDS))

    def _seen(self) -> tuple[dict[str, Any], bool]:
        """What the viewers report, and whether they have everything that they were to wait for."""
        line = self._viewers.read_line(_CATCH_UP_SECONDS)
        if line is not None:
            return dict(msgspec.json.decode(line)), True
        self._viewers.send("stop")
        return dict(self._viewers.read(ANSWER_SECONDS)), False

    def _watching(self) -> dict[str, object]:
        known = {key: self._side.receiver[key] for key in ("port", "path", "subprotocol")}
        subscription = Envelope(
            MessageType.SUB, channel=self._plan.channel, id="join", data=Subscribe(snapshot=True).fields()
        )
        own = {
            "subscribe": encode_json(subscription).decode(),
            "connections": self._plan.subscribers,
            "channels": self._plan.channels,
            "record": self._record,
        }
        return known | own


def _events(side: Side, tasks: int) -> dict[str, object]:
    """Options of native/task_publisher.c: the events as a producer of the SDK publishes them."""
    store_id = unquote(producer_store_id(_CHANNEL, "$E"))  # a template, in which the dollar signs are not data
    header = f"NATS/1.0\r\n{MESSAGE_ID}: {store_id}\r\n\r\n"
    return {
        "port": urlsplit(side.nats).port,
        "tasks": tasks,
        "subject": to_subject(_CHANNEL),
        "header": header,
        "started": _event(TaskEvent.STARTED, f'"title":"{TITLE % _NAME}","kind":"bench"'),
        "progress": _event(TaskEvent.PROGRESS, f'"done":{_NUMBER},"total":{TOTAL},"message":"{_STAMP} compiling"'),
        "output": _event(TaskEvent.OUTPUT, f'"lines":["{_STAMP} compiling src/module_{_NUMBER}.c"]'),
        "completed": _event(TaskEvent.COMPLETED, f'"result":{{"task":{_NAME}}}'),
        "every": LINES_EVERY,
    }


def _event(event: TaskEvent, data: str) -> str:
    return f'{{"v":1,"i":"$E","e":"{event}","d":{{"attempt":1,{data}}},"ts":$T}}'
