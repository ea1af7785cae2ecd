"""`fanline.celery.install`: what viewers see of Celery's tasks, with real workers of every pool."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from celery import chain, chord
from celery.result import AsyncResult

from fanline.protocol.tasks.states import TaskState
from tests.integration.queues.jobs.celery_worker import READY, CeleryQueue, celery_queue
from tests.support.seeds import new_seed
from tests.support.servers.serve import Serve

IN_TIME = 5.0
"""Seconds after Celery reports an end, within which its stream has to end."""
SAME = {"SUCCESS": TaskState.COMPLETED, "FAILURE": TaskState.FAILED, "REVOKED": TaskState.CANCELLED}
PREFORK = ("-c", "4")


@pytest.mark.timeout(400)
async def test_every_stream_ends_in_the_state_that_celery_reports_within_five_seconds(
    serve: Serve, redis: str, tmp_path: Path
) -> None:
    """200 tasks under prefork: a tenth each fails, is retried, is revoked with terminate, and is killed by SIGKILL.

    The broker has to be one that Celery reads in an event loop, as Redis: with others the children of its pool share a
    lock, and one that is ended while it has it stops them all (billiard's ResultHandler sends SIGTERM to a child that
    says it ends).
    """
    names = ["bad", "again", "sleep", "kill"] * 20 + ["fine", "plain"] * 60
    random.Random(new_seed()).shuffle(names)
    with trio.fail_after(380):
        async with celery_queue(serve, redis, tmp_path, *PREFORK) as queue:
            results = [(name, queue.send(name)) for name in names]
            reported, slowest = await _run_all(queue, results)
            in_time = IN_TIME + 5 * slowest  # where a look at the results takes long, so does everything else
            with trio.fail_after(in_time + 30):
                await queue.streams.wait_ends(lambda ended: len(ended) >= len(results))
            late = {
                f"{name} {result.id}": delay
                for name, result in results
                if (delay := queue.streams.ended[result.id] - reported[result.id][1]) > in_time
            }
            assert not late
            for name, result in results:
                snapshot = await queue.streams.snapshot(result.id)
                assert snapshot.state is SAME[reported[result.id][0]], (name, queue.streams.kinds(result.id))
                assert snapshot.attempt == (2 if name == "again" else 1)
    states = {name: {reported[result.id][0] for other, result in results if other == name} for name in names}
    assert states == {
        "fine": {"SUCCESS"},
        "plain": {"SUCCESS"},
        "again": {"SUCCESS"},
        "bad": {"FAILURE"},
        "kill": {"FAILURE"},
        "sleep": {"REVOKED"},
    }


async def _run_all(
    queue: CeleryQueue, results: list[tuple[str, AsyncResult[Any]]]
) -> tuple[dict[str, tuple[str, float]], float]:
    """Revoke what sleeps as soon as it does, and note when Celery has reported the end of each task. Returns also how
    many seconds the slowest look at all results took.
    """
    reported: dict[str, tuple[str, float]] = {}
    slowest, looked = 0.0, time.monotonic()
    asleep = [result for name, result in results if name == "sleep"]
    while len(reported) < len(results):
        for result in [each for each in asleep if queue.has_begun(each)]:
            queue.revoke(result, terminate=True)
            asleep.remove(result)
        for _, result in results:
            if result.id not in reported and (state := queue.state(result)) in READY:
                reported[result.id] = state, time.monotonic()
        await trio.sleep(0.1)
        slowest, looked = max(slowest, time.monotonic() - looked), time.monotonic()
    return reported, slowest


async def _cancel(queue: CeleryQueue, result: AsyncResult[Any]) -> None:
    """As a viewer does."""
    async with queue.streams.client.task(result.id, by="ann") as task:
        await task.cancel()


async def test_a_stream_has_what_the_task_reports_and_each_retry_is_an_attempt(
    serve: Serve, redis: str, tmp_path: Path
) -> None:
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, *PREFORK) as queue:
            fine, again, replaced = queue.send("fine", 5), queue.send("again", 1), queue.send("replace")
            assert (await queue.streams.wait(fine.id))["result"] == 5
            assert await queue.streams.announced(fine.id) == ["started 1", "completed 1"]
            async with queue.streams.client.task(fine.id) as task:
                assert (task.snapshot.title, task.snapshot.kind, task.snapshot.done) == ("jobs.fine", "celery", 5)
                assert [line.text for line in task.output] == ["run 1"]
            assert (await queue.streams.wait(again.id))["result"] == "at last"
            assert await queue.streams.announced(again.id) == ["started 1", "retrying 1", "started 2", "completed 2"]
            retrying = await queue.streams.wait(again.id, "task_retrying")
            assert retrying["error"] == "OSError: disk full"
            assert 0 < retrying["delay"] <= 1
            await queue.streams.wait(replaced.id)
            assert queue.streams.kinds(replaced.id)[-2:] == ["started 2", "completed 2"]


async def test_what_the_main_process_alone_knows_is_told_by_it(serve: Serve, redis: str, tmp_path: Path) -> None:
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, "-c", "1") as queue:
            limited, doomed, unknown = queue.send("limited"), queue.send("fine"), queue.send("nothing")
            await queue.wait_begun(limited)
            queue.revoke(doomed)
            assert "TimeLimitExceeded" in (await queue.streams.wait(limited.id))["error"]
            await queue.streams.wait(doomed.id, "task_cancelled")
            assert queue.streams.kinds(doomed.id)[-1].startswith("cancelled")
            assert "task_started" not in queue.streams.kinds(doomed.id)
            assert "NotRegistered" in (await queue.streams.wait(unknown.id))["error"]
            rejected, ignored, late = queue.send("reject"), queue.send("ignore"), queue.send("fine", expires=-1)
            assert "no good" in (await queue.streams.wait(rejected.id))["error"]
            assert "by hand" in (await queue.streams.wait(ignored.id))["error"]
            await queue.streams.wait(late.id, "task_cancelled")
            assert queue.state(late) == "REVOKED"


async def test_a_viewer_cancels_a_task_and_celery_reports_it_as_revoked(
    serve: Serve, redis: str, tmp_path: Path
) -> None:
    """One that reports stops there, even if Celery would retry it; the process of another is ended."""
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, *PREFORK) as queue:
            for name in ("steps", "flaky", "sleep"):
                result = queue.send(name)
                await queue.streams.wait(result.id, "task_output")
                await _cancel(queue, result)
                await queue.streams.wait(result.id, "task_cancelled")
                assert (await queue.streams.snapshot(result.id)).by == "ann"
                await queue.wait_state(result, "REVOKED")
                assert "retrying 1" not in queue.streams.kinds(result.id)


async def test_what_celery_runs_again_or_never_is_reported_so(serve: Serve, redis: str, tmp_path: Path) -> None:
    """A run that took too long, whose message goes back; what was to follow a task that failed."""
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, *PREFORK) as queue:
            put_back = queue.send("put_back")
            bad, never = queue.app.signature("jobs.bad"), queue.app.signature("jobs.plain", immutable=True)
            chained: Any = chain(bad, never, never).apply_async()
            body: Any = chord([bad, never], never).apply_async()
            for result in (chained.parent, chained, body):
                assert (await queue.streams.wait(result.id))["error"] == "it was not run, since jobs.bad failed"
                assert (await queue.streams.snapshot(result.id)).title == "jobs.plain"
                await queue.wait_state(result, "FAILURE")
            assert (await queue.streams.wait(put_back.id))["result"] == "at last"
            assert await queue.streams.announced(put_back.id) == ["started 1", "started 2", "completed 2"]
            await queue.wait_state(put_back, "SUCCESS")


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
async def test_pools_without_processes_report_the_same(serve: Serve, redis: str, tmp_path: Path, pool: str) -> None:
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, "-P", pool, "-c", "4") as queue:
            for name, end in (("fine", "completed 1"), ("bad", "failed 1"), ("again", "completed 2")):
                result = queue.send(name)
                await queue.streams.wait(result.id)
                assert queue.streams.kinds(result.id)[-1] == end
            if pool != "solo":
                overlap = queue.send("overlap")
                assert (await queue.streams.wait(overlap.id))["result"] == "at last"
                assert queue.streams.kinds(overlap.id)[-2:] == ["started 2", "completed 2"]
            steps = queue.send("steps")
            await queue.streams.wait(steps.id, "task_output")
            if pool != "solo":  # whose worker hears nothing while a task runs
                doomed = queue.send("fine", countdown=3)
                queue.revoke(doomed)
                await queue.streams.wait(doomed.id, "task_cancelled")
            await _cancel(queue, steps)
            await queue.streams.wait(steps.id, "task_cancelled")
            await queue.wait_state(steps, "REVOKED")


@pytest.mark.parametrize("pool", ["threads", "gevent"])
async def test_terminate_changes_a_stream_as_it_changes_the_task(
    serve: Serve, redis: str, tmp_path: Path, pool: str
) -> None:
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, "-P", pool, "-c", "4") as queue:
            result = queue.send("nap", 3)
            await queue.wait_begun(result)
            queue.revoke(result, terminate=True)
            await queue.streams.wait(result.id)
            print(pool, queue.state(result), queue.streams.kinds(result.id))
            assert (await queue.streams.snapshot(result.id)).state is SAME[queue.state(result)]
