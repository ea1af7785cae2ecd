"""Rounds of traffic, a sample after each, and what has changed from begin to end."""

import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import trio

from tests.faults.kinds.clocks import probe_environ
from tests.faults.kinds.shares import wait_for_balance
from tests.faults.logs import summary, tracebacks
from tests.faults.probe.sitecustomize import QUIET, TASKS
from tests.faults.soak.growth import Change, Sample, calmest, changes
from tests.faults.soak.measures import (
    CONNECTIONS,
    CONSUMERS,
    FILES,
    MEMORY,
    SUBSCRIPTIONS,
    TASK_COUNT,
    THREADS,
    of_nats,
    of_process,
)
from tests.faults.soak.traffic import Round
from tests.support.nats.client import connect_nats
from tests.support.nats.server import NatsServer, running_nats
from tests.support.servers.serve import Serve, running_serve, wait_until

STEADY, KILLED, SUPERVISOR, NATS = "a worker", "a slot that is killed", "the supervisor", "nats-server"
MEMORY_MINUTES = 10.0
"""In less time, memory is shown but not judged: sessions are kept for two minutes, so until then it must grow."""
_ROUND_SECONDS, _FEWEST_ROUNDS = 12.0, 6
_QUIET_SHARE, _QUIET_SECONDS = 1 / 6, 1.2
_BACK_SECONDS = 20.0
_READINGS = 3
_CALM_SECONDS = 10.0
_COUNTED = frozenset((FILES, THREADS, TASK_COUNT, CONNECTIONS, SUBSCRIPTIONS, CONSUMERS))
_SETTINGS = """\
[namespaces.doc]
max_age = 10
[namespaces.task]
max_age = 10
retention = 10
"""


@dataclass
class SoakReport:
    """What a soak has shown."""

    rounds: int = 0
    acknowledged: int = 0
    calls: int = 0
    kills: int = 0
    changes: list[Change] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What was not as promised, apart from what has grown."""
    log: str = ""

    @property
    def grown(self) -> list[Change]:
        return [change for change in self.changes if change.grown]


class _Soak:
    """One soak in progress."""

    def __init__(self, serve: Serve, nats: NatsServer, probe: Path, seed: int) -> None:
        self.report = SoakReport()
        self._serve = serve
        self._nats = nats
        self._probe = probe
        self._seed = seed
        self._steady = serve.worker_pids()[0]
        self._samples: dict[str, list[Sample]] = {STEADY: [], KILLED: [], SUPERVISOR: [], NATS: []}

    async def run(self, seconds: float) -> None:
        rounds = max(_FEWEST_ROUNDS, round(seconds / _ROUND_SECONDS))
        quiet = max(_QUIET_SECONDS, seconds / rounds * _QUIET_SHARE)
        life = max(3, rounds // 8)
        for number in range(rounds):
            kills = number % life == life - 1 and number < rounds - 1
            await self._round(number, seconds / rounds - quiet, kills=kills)
            await self._sample(quiet)
            print(f"round {number + 1} of {rounds}: {self._short()}", flush=True)
        self.report.rounds = rounds
        self.report.log = summary(self._serve.stderr_text(), "")
        self.report.broken += tracebacks(self._serve.stderr_text())

    async def _round(self, number: int, seconds: float, *, kills: bool) -> None:
        traffic = Round(self._serve, number, self._seed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(traffic.run, seconds)
            if kills:
                await trio.sleep(seconds / 2)
                os.kill(self._victim(), signal.SIGKILL)
                self.report.kills += 1
        await wait_until(self._all_there, _BACK_SECONDS)
        async with connect_nats(self._nats.url) as nats:
            await wait_for_balance(nats, self._serve)
        self.report.acknowledged += traffic.acknowledged
        self.report.calls += traffic.calls
        told = f"round {number + 1}: "
        self.report.broken += [told + fault for fault in traffic.faults[:1]]
        self.report.broken += [f"{told}{traffic.gaps} gaps"] * bool(traffic.gaps)
        self.report.broken += [f"{told}{traffic.repeats} duplicates"] * bool(traffic.repeats)
        self.report.broken += [f"{told}nothing was acknowledged"] * (not traffic.acknowledged)

    def _victim(self) -> int:
        (pid,) = (pid for pid in self._serve.worker_pids() if pid != self._steady)
        return pid

    def _all_there(self) -> bool:
        pids = self._serve.worker_pids()
        return len(pids) == 2 and all((self._probe / TASKS.format(pid)).exists() for pid in pids)

    async def _sample(self, quiet: float) -> None:
        """Read everything some times, towards the end of `quiet` seconds without clients."""
        pids = {STEADY: self._steady, KILLED: self._victim(), SUPERVISOR: self._serve.pid, NATS: self._nats.pid}
        readings: dict[str, list[dict[str, float]]] = {name: [] for name in pids}
        (self._probe / QUIET).touch()
        await trio.sleep(quiet / 2)
        with trio.move_on_after(_CALM_SECONDS):
            while len(readings[NATS]) < _READINGS or not self._is_calm(pids, readings):
                await trio.sleep(quiet / 2 / _READINGS)
                for name, pid in pids.items():
                    readings[name].append(self._read(name, pid))
        (self._probe / QUIET).unlink()
        for name, pid in pids.items():
            self._samples[name].append(Sample(pid, calmest(readings[name])))

    def _is_calm(self, pids: dict[str, int], readings: dict[str, list[dict[str, float]]]) -> bool:
        """Whether no process has more open than it has ever had in its calmest moment. On a busy machine what the
        clients of a round have left takes a while to end; what has leaked never does.
        """
        for name, pid in pids.items():
            now = calmest(readings[name])
            for sample in (sample for sample in self._samples[name] if sample.life == pid):
                if any(now.get(measure, 0) > sample.values.get(measure, math.inf) for measure in _COUNTED):
                    return False
        return True

    def _read(self, name: str, pid: int) -> dict[str, float]:
        if name == NATS:
            return of_process(pid) | of_nats(self._nats.monitoring)
        return of_process(pid, self._probe)

    def _short(self) -> str:
        nats = self._samples[NATS][-1].values
        values = {**self._samples[STEADY][-1].values, SUBSCRIPTIONS: nats[SUBSCRIPTIONS]}
        return ", ".join(f"{name} {value:.0f}" for name, value in values.items())

    def finish(self, *, judge_memory: bool) -> SoakReport:
        ours = _COUNTED | ({MEMORY} if judge_memory else set())
        for name, samples in self._samples.items():
            # The memory and the threads of nats-server are up to Go's runtime.
            judged = _COUNTED - {THREADS} if name == NATS else ours
            self.report.changes += changes(name, samples, frozenset(judged))
        return self.report


async def soak(minutes: float, seed: int) -> SoakReport:
    """Run it. Takes as long as it says, and some seconds more."""
    async with _running_soak(seed) as running:
        await running.run(minutes * 60)
        return running.finish(judge_memory=minutes >= MEMORY_MINUTES)


@asynccontextmanager
async def _running_soak(seed: int) -> AsyncIterator[_Soak]:
    with TemporaryDirectory(prefix="fanline-soak-", ignore_cleanup_errors=True) as name:
        probe = Path(name)
        (probe / "fanline.toml").write_text(_SETTINGS)
        async with running_nats(config='http: "127.0.0.1:-1"') as nats:
            args = ("--nats", nats.url, "--config", str(probe / "fanline.toml"))
            async with running_serve(workers=2, extra_args=args, env=probe_environ(probe)) as serve:
                yield _Soak(serve, nats, probe, seed)
