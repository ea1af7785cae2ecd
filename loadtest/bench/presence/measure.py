"""The presence bench: many users on one channel, queries, a storm of joins and leaves beside others, a killed worker.

The same storm on a channel without presence shows what the commands themselves cost.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from fanline.loadtest.bench.durable.figures import PATIENCE_SECONDS, ranks
from fanline.loadtest.bench.durable.subscriber_pool import Endpoint
from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import cpu_seconds
from fanline.loadtest.bench.plan import Plan
from fanline.loadtest.bench.presence.crowd import Crowd, CrowdUser
from fanline.loadtest.bench.processes import Tool, running
from fanline.loadtest.bench.server import READY_SECONDS, StartSide, with_our_packages
from fanline.protocol.envelope import Envelope, MessageType

SECRET = "the secret of a bench, which is not secret"
ROOM = "room:all"
_DULL = "load:storm"
_SETTINGS = "[namespaces.room]\npresence = true\n"
_QUERIES = 500
_VIEWERS = 100
_STORM_USERS = 500
_TICK_SECONDS = 0.01
_SETTLE_SECONDS = 2.0
_RIGHT_SECONDS = 30.0


class PresenceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, unless a docstring says otherwise."""

    users: int
    first: float
    """The first query of a worker, which asks the others."""
    p50: float
    p99: float
    """Of queries without a storm."""
    storm_p99: float
    """Of queries during the storm."""
    quiet: float
    dull: float
    storm: float
    """The p99 of other clients' messages: without a storm, in one on a channel without presence, and with presence."""
    dull_cpu: float
    storm_cpu: float
    """CPU microseconds of the workers for each join or leave, in the same storms."""
    changes: float
    """Joins and leaves a second during the storm."""
    right: float
    """Seconds from the death of a worker until the count was right."""
    left: int
    """Users that remained then."""
    fault_count: int

    @property
    def complete(self) -> bool:
        """Whether every count was right in the end."""
        return not self.fault_count


def measure_presence(start: StartSide, plan: Plan) -> PresenceFigures:
    """Raises BenchError."""
    if plan.subscribers <= _VIEWERS:
        raise BenchError(f"{_VIEWERS} users are viewers: take more --subscribers")
    with tempfile.TemporaryDirectory(prefix="fanline-bench-", ignore_cleanup_errors=True) as name:
        (Path(name) / "fanline.toml").write_text(_SETTINGS)
        with start(plan, Path(name)) as side:
            endpoint = Endpoint(int(str(side.receiver["port"])), str(side.receiver["path"]))
            url = f"ws://127.0.0.1:{endpoint.port}{endpoint.path}"
            with Crowd(endpoint, SECRET) as crowd, _bystanders(url) as others:
                users = crowd.connect([f"user-{number:05}" for number in range(plan.subscribers)], PATIENCE_SECONDS)
                for user in users:
                    user.say(Envelope(MessageType.SUB, channel=ROOM, id="sub"))
                if not crowd.run(PATIENCE_SECONDS, lambda: all("sub" in user.answers for user in users)):
                    raise BenchError(f"not all were subscribed within {PATIENCE_SECONDS:g} s")
                crowd.run(_SETTLE_SECONDS)
                return _Run(crowd, others, plan, side.pids).figures()


@contextmanager
def _bystanders(url: str) -> Iterator[Tool]:
    command = (sys.executable, "-P", "-m", "fanline.loadtest.bench.presence.bystanders", url)
    with running(command, with_our_packages(os.environ)) as tool:
        tool.read(READY_SECONDS)
        yield tool


class _Storm(NamedTuple):
    """What other clients noticed of a storm."""

    p99: float
    """Of the bystanders' messages, in milliseconds."""
    changes: int
    cpu: float
    """Seconds of the workers."""
    asked: list[float]
    """Milliseconds that queries took."""


class _Run:
    def __init__(self, crowd: Crowd, others: Tool, plan: Plan, pids: tuple[int, ...]) -> None:
        self._crowd = crowd
        self._others = others
        self._plan = plan
        self._pids = pids
        self._faults = 0
        self._asker = crowd.users[-1]

    def figures(self) -> PresenceFigures:
        first, _ = self._query(self._plan.subscribers)
        queries = [self._query(self._plan.subscribers)[0] for _ in range(_QUERIES)]
        for viewer in self._crowd.users[:_VIEWERS]:
            viewer.say(Envelope(MessageType.SUB, channel=ROOM, data={"presence": True}))
        quiet = self._beside(None)
        dull = self._beside(_DULL)
        storm = self._beside(ROOM)
        p50, p99 = ranks(queries, (0.5, 0.99))
        right, left = self._kill()
        return PresenceFigures(
            users=self._plan.subscribers,
            first=first,
            p50=p50,
            p99=p99,
            storm_p99=ranks(storm.asked, (0.99,))[0],
            quiet=quiet.p99,
            dull=dull.p99,
            storm=storm.p99,
            dull_cpu=(dull.cpu - quiet.cpu) / dull.changes * 1e6,
            storm_cpu=(storm.cpu - quiet.cpu) / storm.changes * 1e6,
            changes=storm.changes / self._plan.seconds,
            right=right,
            left=left,
            fault_count=self._faults,
        )

    def _query(self, expected: int | None) -> tuple[float, int]:
        """Milliseconds, and the count; a count other than this one is a fault."""
        seconds, data = self._crowd.query(self._asker, ROOM, PATIENCE_SECONDS)
        if expected is not None and data.count != expected:
            self._faults += 1
        return seconds * 1000, data.count

    def _beside(self, channel: str | None) -> _Storm:
        """What other clients notice of a storm on a channel; None: without a storm."""
        self._crowd.run(_SETTLE_SECONDS)
        storm = self._crowd.users[_VIEWERS : _VIEWERS + _STORM_USERS]
        self._others.send(str(self._plan.seconds))
        begun, changes, asked, cpu = time.perf_counter(), 0, list[float](), cpu_seconds(self._pids)
        while (passed := time.perf_counter() - begun) < self._plan.seconds:
            if channel is not None:
                while changes < passed * self._plan.rate:
                    join = bool(changes // len(storm) % 2) is not (channel == _DULL)  # they are on ROOM already
                    _change(storm[changes % len(storm)], channel, join=join)
                    changes += 1
            asked.append(self._query(None)[0])
            self._crowd.run(_TICK_SECONDS)
        took = self._others.read(PATIENCE_SECONDS)
        cpu = cpu_seconds(self._pids) - cpu
        for user in storm if channel == ROOM else ():
            _change(user, ROOM, join=True)
        if channel == ROOM:
            self._crowd.run(_SETTLE_SECONDS)
            self._query(self._plan.subscribers)
        return _Storm(ranks(took, (0.99,))[0], changes, cpu, asked)

    def _kill(self) -> tuple[float, int]:
        """Kill the worker that does not serve the asker; seconds until the count is right, and the count."""
        everybody = len(self._crowd.connected)
        killed = time.perf_counter()
        os.kill(self._pids[0], signal.SIGKILL)
        self._crowd.run(0.5)
        if self._asker.lost:
            self._asker = self._crowd.connected[-1]
        left = len(self._crowd.connected)
        if left == everybody:
            raise BenchError("no user was on the killed worker")
        while self._query(None)[1] != left:
            if time.perf_counter() - killed > _RIGHT_SECONDS:
                self._faults += 1
                break
            self._crowd.run(0.05)
        return time.perf_counter() - killed, left


def _change(user: CrowdUser, channel: str, *, join: bool) -> None:
    user.say(Envelope(MessageType.SUB if join else MessageType.UNSUB, channel=channel, id="change"))
