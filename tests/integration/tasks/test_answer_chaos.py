"""Answers and requests to stop while processes and connections are killed at each step on their way: exactly one answer
reaches the job, and every viewer is told the truth. HARD=1 tries each step with each victim.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio

from fanline.protocol.nats.addresses import parse_url
from tests.support.faults.fault_proxy import FaultProxy, running_proxy
from tests.support.nats.client import connect_nats
from tests.support.paths import ROOT
from tests.support.raw_client import RawClient
from tests.support.seeds import new_seed
from tests.support.servers.serve import Serve, running_serve, wait_until
from tests.support.tasks.on_worker import connect_to
from tests.support.tasks.producer import NatsProducer
from tests.support.tasks.viewers import ResumingViewer, has_ended

HARD = os.environ.get("HARD") == "1"
CHANNEL = "task:asks"
ROUND_SECONDS = 40.0
_LOST = (OSError, AssertionError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)

JOB = """
import sys, fanline
with open(sys.argv[1], "a", buffering=1) as out, fanline.Task("asks", heartbeat=1) as task:
    for number in range(int(sys.argv[2])):
        answer = task.ask(f"question {number}")
        print(number, answer.value, answer.by, file=out)
        sys.stdin.readline()
    if len(sys.argv) > 3:
        for call in task.calls():
            print(call.verb, file=out)
            call.answer()
            break
"""


class Step(StrEnum):
    """What is seen in NATS when an answer has got so far."""

    PING = '{"v":1,"t":"ping"}'
    STORED = '"e":"task_input"'
    CALL = '"t":"call"'
    DELIVERED = '"e":"task_input_delivered"'


STOP_STEPS = {
    Step.PING: Step.PING,
    Step.STORED: '"e":"task_cancel_requested"',
    Step.CALL: Step.CALL,
    Step.DELIVERED: '"e":"task_cancel_accepted"',
}


class Tripwire:
    """Watches the calls to the task, and its stream; when an armed text comes by, it calls its trap once."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._text = b""
        self._trap: Callable[[], None] | None = None
        self.sprung = False

    def arm(self, text: str, trap: Callable[[], None]) -> None:
        self._text, self._trap, self.sprung = text.encode(), trap, False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; it is an operator's `nats sub`, which makes no task look attended."""
        started = False
        while True:
            with suppress(*_LOST):
                async with connect_nats(self._serve.engine_url) as nats:
                    await nats._stream.send_all(b"SUB fanline.ctl.> 8\r\nSUB fanline.out.task.asks 9\r\n")
                    await nats.flush()
                    if not started:
                        started = True
                        task_status.started()
                    while True:
                        self._look(await nats._line())
            await trio.sleep(0.05)

    def _look(self, line: bytes) -> None:
        if self._trap is not None and self._text in line:
            trap, self._trap = self._trap, None
            self.sprung = True
            trap()


class Stage(NamedTuple):
    serve: Serve
    wire: Tripwire
    link: FaultProxy
    """Between the job and NATS."""
    viewer: ResumingViewer
    nursery: trio.Nursery

    def trap(self, victim: str, worker: int) -> Callable[[], None]:
        """Kills a victim; `worker`: the one that was asked."""

        def spring() -> None:
            match victim:
                case "worker":
                    os.kill(worker, signal.SIGKILL)
                case "workers":
                    for pid in self.serve.worker_pids():
                        os.kill(pid, signal.SIGKILL)
                case "nats":
                    os.kill(self.serve.nats_pid(), signal.SIGKILL)
                case _:
                    self.link.cut_all()

        return spring

    def is_whole(self) -> bool:
        try:
            return len(self.serve.worker_pids()) == 2 and self.serve.nats_pid() > 0
        except ValueError:
            return False

    @contextmanager
    def job(self, out: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that asks questions, and writes down the answers; after each it waits for a line on its stdin."""
        url = self.serve.producer_url.rpartition(":")[0] + f":{self.link.port}"
        environ = os.environ | {"PYTHONPATH": str(ROOT), "FANLINE_NATS": url}
        command = [sys.executable, "-P", "-c", JOB, str(out), *args]
        with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()


@asynccontextmanager
async def stage(seconds: float) -> AsyncIterator[Stage]:
    with trio.fail_after(seconds):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            address = parse_url(serve.nats_url)
            async with running_proxy((address.host, address.port), new_seed()) as link:
                at = Stage(serve, Tripwire(serve), link, ResumingViewer(serve, CHANNEL), nursery)
                await nursery.start(at.wire.run)
                await nursery.start(at.viewer.run)
                yield at
                errors = serve.stderr_text()
                nursery.cancel_scope.cancel()
    assert "Traceback" not in errors, errors


class Told(NamedTuple):
    """What a viewer was told: "ok", an error code, or "lost"."""

    what: str
    text: str = ""


async def call(at: Stage, worker: int | None, verb: str, data: dict[str, Any]) -> Told:
    """Call once, on a connection of its own."""
    with trio.move_on_after(20):
        try:
            async with connect_to(at.serve, worker) as client:
                return await _reply(client, verb, data)
        except _LOST:
            pass
    return Told("lost")


async def _reply(client: RawClient, verb: str, data: dict[str, Any]) -> Told:
    reply = await client.ask({"v": 1, "t": "call", "c": CHANNEL, "i": "1", "e": verb, "d": data})
    if reply["t"] == "ok":
        return Told("ok")
    return Told(reply["d"]["code"], reply["d"]["message"])


async def insist(at: Stage, verb: str, data: dict[str, Any], final: tuple[str, ...]) -> tuple[Told, bool]:
    """Call until the reply is final; whether any reply before it left open what was done."""
    unsure = False
    while (told := await call(at, None, verb, data)).what not in final:
        unsure = unsure or told.what in ("lost", "unavailable")
        await trio.sleep(0.2)
    return told, unsure


def asks(viewer: ResumingViewer, number: int) -> bool:
    ask = viewer.snapshot.ask
    return ask is not None and ask.open and ask.text == f"question {number}"


def lines(out: Path) -> list[list[str]]:
    return [line.split() for line in out.read_text().splitlines()] if out.exists() else []


@pytest.mark.parametrize("victim", ["worker", "workers", "nats", "link"])
async def test_exactly_one_answer_reaches_the_job_and_each_viewer_is_told_the_truth(
    victim: str, tmp_path: Path
) -> None:
    chance = random.Random(new_seed())
    steps = list(Step) if HARD else [Step.STORED, chance.choice(list(Step))]
    out = tmp_path / "answers"
    async with stage(30 + ROUND_SECONDS * len(steps)) as at:
        with at.job(out, str(len(steps))) as job:
            for number, step in enumerate(steps):
                with trio.fail_after(ROUND_SECONDS):
                    await _one_question(at, number, step, victim, out)
                assert job.stdin is not None
                job.stdin.write(b"\n")
                job.stdin.flush()
            await wait_until(lambda: has_ended(at.viewer))
    assert [number for number, *_ in lines(out)] == [str(number) for number in range(len(steps))]


async def _one_question(at: Stage, number: int, step: Step, victim: str, out: Path) -> None:
    await wait_until(lambda: at.is_whole() and asks(at.viewer, number))
    ask = at.viewer.snapshot.ask
    assert ask is not None
    worker = at.serve.worker_pids()[0]
    at.wire.arm(step, at.trap(victim, worker))
    begun = trio.current_time()
    ann = await call(at, worker, "approve", {"ask": ask.id, "by": "ann", "value": "from-ann"})
    bob, unsure = await insist(
        at, "approve", {"ask": ask.id, "by": "bob", "value": "from-bob"}, ("ok", "already_answered")
    )
    await wait_until(lambda: len(lines(out)) > number)
    print(f"{victim} at {step.name}: ann {ann}, bob {bob}, {trio.current_time() - begun:.1f} s, {lines(out)[number]}")
    assert at.wire.sprung
    (_, value, winner) = lines(out)[number]
    assert value == f"from-{winner}"
    if ann.what == "ok":
        assert winner == "ann"
    elif ann.what in ("no_producer", "already_answered"):
        assert winner == "bob"
    else:
        assert ann.what in ("lost", "unavailable")
    if bob.what == "ok":
        assert winner == "bob"
    else:
        assert bob.text == f"already answered by {winner}"
        assert winner == "ann" or unsure


@pytest.mark.parametrize("victim", ["worker", "nats", "link"])
async def test_a_stop_reaches_the_job_once_and_each_viewer_is_told_the_truth(victim: str, tmp_path: Path) -> None:
    chance = random.Random(new_seed())
    steps = list(Step) if HARD else [chance.choice(list(Step))]
    for number, step in enumerate(steps):
        out = tmp_path / f"stops-{number}"
        async with stage(90) as at:
            with at.job(out, "0", "calls"):
                await wait_until(lambda: at.viewer.snapshot.state == "running")
                worker = at.serve.worker_pids()[0]
                at.wire.arm(STOP_STEPS[step], at.trap(victim, worker))
                told = await call(at, worker, "cancel", {"by": "ann", "deadline": 60})
                await wait_until(lambda: at.wire.sprung)
                if told.what != "ok" and not await _was_requested(at):
                    await insist(at, "cancel", {"by": "bob", "deadline": 60}, ("ok", "task_ended"))
                await wait_until(lambda: has_ended(at.viewer), 40)
            print(f"{victim} at {step.name}: {told}, {at.viewer.events}")
        assert told.what in ("ok", "no_producer", "lost", "unavailable")
        assert lines(out) == [["cancel"]]
        assert at.viewer.snapshot.state == "completed"  # of its own accord, not by force


async def _was_requested(at: Stage) -> bool:
    """Whether the request was stored, as its viewer sees at the latest when both workers are back."""
    await wait_until(at.is_whole)
    with trio.move_on_after(5):
        while "task_cancel_requested" not in at.viewer.events:
            await trio.sleep(0.05)
    return "task_cancel_requested" in at.viewer.events


async def test_a_producer_that_is_killed_and_asks_again_gets_the_answer_that_is_stored() -> None:
    async with stage(60) as at:
        first, second = (NatsProducer(at.serve, CHANNEL) for _ in range(2))
        life = trio.CancelScope()

        async def live(*, task_status: trio.TaskStatus[None]) -> None:
            with life:
                await first.run(task_status=task_status)

        await at.nursery.start(live)
        await first.say("task_started")
        await first.say("task_confirmation_required", ask="deploy", text="Deploy?")
        at.wire.arm(Step.PING, life.cancel)
        ann = await call(at, None, "approve", {"ask": "deploy", "by": "ann"})
        bob = await call(at, None, "reject", {"ask": "deploy", "by": "bob"})
        await at.nursery.start(second.run)
        await second.say("task_confirmation_required", ask="deploy", text="Deploy?")
        if ann.what != "ok":
            assert (ann.what, bob.what) == ("no_producer", "no_producer")
            await call(at, None, "approve", {"ask": "deploy", "by": "ann"})
        await wait_until(lambda: bool(second.calls or first.calls))
        (asked,) = [*first.calls, *second.calls]
        assert (asked["e"], asked["u"], asked["d"]) == ("approve", "ann", {"ask": "deploy", "value": True})
