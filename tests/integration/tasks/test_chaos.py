"""A task while everything around it breaks: real processes, real NATS. All viewers agree afterwards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest
import trio

from tests.support.raw_client import RawClient
from tests.support.servers.serve import Serve, kill, running_serve, wait_until
from tests.support.tasks.on_worker import connect_to
from tests.support.tasks.producer import NatsProducer
from tests.support.tasks.viewers import PlainViewer, ResumingViewer, has_ended

CHANNEL = "task:chaos"
JSON, CBOR = "fanline.v1.json", "fanline.v1.cbor"


class Stage(NamedTuple):
    """A running server, the producer of CHANNEL, and the nursery for its viewers."""

    serve: Serve
    producer: NatsProducer
    nursery: trio.Nursery

    async def viewer(self, subprotocol: str = JSON, worker: int | None = None) -> ResumingViewer:
        viewer = ResumingViewer(self.serve, CHANNEL, subprotocol, worker)
        await self.nursery.start(viewer.run)
        return viewer


@asynccontextmanager
async def stage(seconds: float = 60) -> AsyncIterator[Stage]:
    with trio.fail_after(seconds):
        async with running_serve(workers=2) as serve, trio.open_nursery() as nursery:
            producer = NatsProducer(serve, CHANNEL)
            await nursery.start(producer.run)
            yield Stage(serve, producer, nursery)
            nursery.cancel_scope.cancel()
            errors = serve.stderr_text()
    assert "Traceback" not in errors, errors


# --- killed processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["worker", "nats"])
async def test_a_task_goes_on_and_all_viewers_end_alike_although_processes_are_killed(victim: str) -> None:
    count = 300
    async with stage(90) as (serve, producer, nursery):
        actors = Stage(serve, producer, nursery)
        # By chance a worker might have no viewer, and then nobody would notice its end.
        viewers = [await actors.viewer(JSON, pid) for pid in serve.worker_pids()]
        viewers += [await actors.viewer(dialect) for dialect in (JSON, CBOR) * 3]
        plain = [PlainViewer(serve, CHANNEL) for _ in range(2)]
        for one in plain:
            await nursery.start(one.run)
        await producer.say("task_started", title="Chaos")
        for number in range(1, count + 1):
            await producer.say("task_progress", done=number, total=count, stage=f"s{number // 50}")
            await producer.say("task_output", lines=[f"line {2 * number}", f"line {2 * number + 1}"])
            if number % 40 == 0:
                await producer.say("task_paused" if number % 80 else "task_resumed")
            if number % 100 == 50:
                await kill(serve.worker_pids()[number // 100 % 2] if victim == "worker" else serve.nats_pid())
                if number == 50 and victim == "worker":
                    await wait_until(lambda: any(viewer.connections > 1 for viewer in viewers))
                await wait_until(serve.is_whole)
            await trio.sleep(0.005)
        await producer.say("task_completed", result={"n": count})
        for viewer in viewers:
            await wait_until(partial(has_ended, viewer))
        late = await actors.viewer()
        await wait_until(lambda: all(one.status.get("state") == "completed" for one in plain))
    assert_alike(viewers, late, {(1, number): f"line {number + 2}" for number in range(2 * count)})
    for one in plain:
        told = {key: one.status.get(key) for key in ("percent", "result", "lines", "attempt")}
        assert told == {"percent": 100.0, "result": {"n": count}, "lines": 2 * count, "attempt": 1}
    if victim == "nats":
        assert producer.connections > 1
    else:
        assert any(viewer.connections > 1 for viewer in viewers)


def assert_alike(viewers: list[ResumingViewer], late: ResumingViewer, lines: dict[tuple[int, int], str]) -> None:
    assert late.snapshot.state == "completed"
    assert late.lines.items() <= lines.items()
    for viewer in viewers:
        assert (viewer.faults, viewer.gaps) == ([], 0)
        assert viewer.snapshot == late.snapshot
        assert viewer.lines == lines


# --- attempts -------------------------------------------------------------------------------------------------------


async def test_viewers_switch_to_attempt_two_and_late_output_of_attempt_one_reaches_no_viewer() -> None:
    async with stage() as actors:
        first, second = actors.serve.worker_pids()
        viewers = [await actors.viewer(JSON, first), await actors.viewer(CBOR, second)]
        say = actors.producer.say
        await say("task_started", title="Again")
        await say("task_output", lines=["one 0", "one 1"])
        await say("task_started", attempt=2)
        await say("task_output", lines=["late"], attempt=1)
        await say("task_completed", result="late", attempt=1)
        await say("task_output", lines=["two 0"], attempt=2)
        await say("task_output", lines=["two 1"])
        await say("task_completed", attempt=2, result="two")
        for viewer in viewers:
            await wait_until(partial(has_ended, viewer))
        late = await actors.viewer()
    lines = {(1, 0): "one 0", (1, 1): "one 1", (2, 0): "two 0", (2, 1): "two 1"}
    expected = ["task_started", "task_output", "task_started", "task_output", "task_output", "task_completed"]
    for viewer in viewers:
        assert (viewer.lines, viewer.events) == (lines, expected)
        assert viewer.snapshot == late.snapshot
    assert (late.snapshot.attempt, late.snapshot.result, late.snapshot.lines) == (2, "two", 2)


# --- upstream -------------------------------------------------------------------------------------------------------


async def call(client: RawClient, verb: str, by: str, ask: str | None = None) -> dict[str, Any]:
    data = {"by": by} | ({} if ask is None else {"ask": ask})
    return await client.ask({"v": 1, "t": "call", "c": CHANNEL, "i": verb, "e": verb, "d": data})


async def test_a_cancel_on_one_worker_is_seen_on_the_other() -> None:
    async with stage() as actors:
        first, second = actors.serve.worker_pids()
        await actors.producer.say("task_started")
        viewers = [await actors.viewer(dialect, pid) for pid in (first, second) for dialect in (JSON, CBOR)]
        async with connect_to(actors.serve, first) as client:
            answer = await call(client, "cancel", "ann")
        assert (answer["t"], answer["d"]) == ("ok", {"done": True})
        for viewer in viewers:
            await wait_until(partial(_agreed_to_stop, viewer))
            assert viewer.events == ["task_cancel_requested", "task_cancel_accepted"]
            assert (viewer.snapshot.state, viewer.snapshot.stop and viewer.snapshot.stop.by) == ("cancelling", "ann")
        await actors.producer.say("task_cancelled")
        for viewer in viewers:
            await wait_until(partial(has_ended, viewer))
            assert (viewer.snapshot.state, viewer.snapshot.by) == ("cancelled", "ann")
        assert [asked["e"] for asked in actors.producer.calls] == ["cancel"]


async def test_of_two_answers_at_the_same_moment_exactly_one_wins_a_hundred_times() -> None:
    wins, head_start = {"ann": 0, "bob": 0}, 0.0
    async with stage() as actors:
        first, second = actors.serve.worker_pids()
        await actors.producer.say("task_started")
        viewer = await actors.viewer()
        async with connect_to(actors.serve, first) as ann, connect_to(actors.serve, second) as bob:
            for number in range(100):
                name = f"q{number}"
                await actors.producer.say("task_confirmation_required", ask=name, text="Deploy?")
                answers = await _answer_both(ann, bob, name, head_start)
                (winner,) = [by for by, told in answers.items() if told["t"] == "ok"]
                (refused,) = [told["d"] for told in answers.values() if told["t"] != "ok"]
                assert (refused["code"], refused["message"]) == ("already_answered", f"already answered by {winner}")
                assert actors.producer.calls[number]["d"] == {"ask": name, "value": winner == "ann"}
                assert len(actors.producer.calls) == number + 1
                await wait_until(partial(_answered, viewer, name))
                assert viewer.snapshot.ask is not None
                assert (viewer.snapshot.ask.by, viewer.snapshot.ask.value) == (winner, winner == "ann")
                wins[winner] += 1
                head_start += 0.0002 if winner == "bob" else -0.0002  # so that they really meet
    print(f"won: {wins}, ann ahead by {head_start * 1000:.1f} ms")
    assert all(wins.values())


async def _answer_both(ann: RawClient, bob: RawClient, name: str, head_start: float) -> dict[str, dict[str, Any]]:
    """Ann approves and Bob rejects, Ann `head_start` seconds earlier; name -> answer."""
    answers: dict[str, dict[str, Any]] = {}

    async def answer(client: RawClient, verb: str, by: str, after: float) -> None:
        await trio.sleep(after)
        answers[by] = await call(client, verb, by, name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, ann, "approve", "ann", max(0.0, -head_start))
        nursery.start_soon(answer, bob, "reject", "bob", max(0.0, head_start))
    return answers


def _answered(viewer: ResumingViewer, name: str) -> bool:
    ask = viewer.snapshot.ask
    return ask is not None and ask.id == name and ask.by is not None


def _agreed_to_stop(viewer: ResumingViewer) -> bool:
    return viewer.snapshot.stop is not None and viewer.snapshot.stop.accepted
