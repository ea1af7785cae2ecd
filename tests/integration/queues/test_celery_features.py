"""`fanline.celery.install` and what else Celery has: clocks, schedules, canvas, redelivery, eager tasks."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from celery import chain, chord, group

from fanline.protocol.tasks.states import TaskState
from tests.integration.queues.jobs import celery_jobs
from tests.integration.queues.jobs.celery_worker import celery_client, celery_queue, celery_worker
from tests.support.servers.serve import Serve
from tests.support.tasks.stored import in_thread

BEAT = {"beat_schedule": {"tick": {"task": "jobs.tick", "schedule": 0.3}}, "beat_max_loop_interval": 0.1}
IMPATIENT = {"broker_transport_options": {"visibility_timeout": 0.1}, "worker_lost_wait": 0.2}
"""What a killed worker did not acknowledge is delivered again to the next one when it starts."""


async def test_periodic_and_delayed_tasks_and_every_task_of_a_canvas_have_streams(
    serve: Serve, redis: str, tmp_path: Path
) -> None:
    flags = ("--autoscale", "3,1", "--beat", "--schedule", str(tmp_path / "schedule"))
    with trio.fail_after(110):
        async with celery_queue(serve, redis, tmp_path, *flags, env={"CELERY_SETTINGS": json.dumps(BEAT)}) as queue:
            later = queue.send("fine", countdown=2)
            await queue.streams.wait(later.id, "task_created")
            assert (await queue.streams.snapshot(later.id)).state is TaskState.QUEUED

            fine, total = (queue.app.signature(f"jobs.{name}") for name in ("fine", "total"))
            chained: Any = chain(fine.clone((2,)), fine, fine).apply_async()
            body: Any = chord([fine.clone((1,)), fine.clone((2,))], total).apply_async()
            grouped: Any = group(queue.app.signature("jobs.nap", (0.5,)) for _ in range(3)).apply_async()
            expected = {each.id: None for each in grouped.results} | {each.id: 2 for each in (chained, chained.parent)}
            expected |= {chained.parent.parent.id: 2, body.id: 3, later.id: 3}
            expected |= {each.id: count for count, each in enumerate(body.parent.results, 1)}
            for task_id, result in expected.items():
                assert (await queue.streams.wait(task_id)).get("result") == result
                assert await queue.streams.announced(task_id) == ["started 1", "completed 1"]
            for task_id in await queue.streams.titled("jobs.tick", 2):
                await queue.streams.wait(task_id, "task_completed")
                assert await queue.streams.announced(task_id) == ["started 1", "completed 1"]


async def test_a_run_that_is_delivered_again_is_the_next_attempt(serve: Serve, redis: str, tmp_path: Path) -> None:
    """Its worker was killed, with all processes, or its process alone (`task_reject_on_worker_lost`)."""
    settings = {"CELERY_SETTINGS": json.dumps(IMPATIENT)}
    with trio.fail_after(110):
        async with celery_client(serve, redis, tmp_path) as queue:
            async with celery_worker(serve, redis, tmp_path, "-c", "1", env=settings):
                late = queue.send("late")
                await queue.wait_begun(late)
                await queue.streams.wait(late.id, "task_output")
            async with celery_worker(serve, redis, tmp_path, "-c", "2", env=settings):
                lost = queue.send("lost")
                await queue.streams.wait(lost.id, "task_output")
                (tmp_path / "begun" / f"{lost.id}-doomed").touch()
                await queue.streams.wait(lost.id)
                assert await queue.streams.announced(lost.id) == ["started 1", "started 2", "completed 2"]
                await queue.streams.wait(late.id)
                told = await queue.streams.announced(late.id)
                assert told == ["started 1", "started 2", "retrying 2", "started 3", "completed 3"]
                await queue.wait_state(late, "SUCCESS")
                await queue.wait_state(lost, "SUCCESS")


async def test_eager_tasks_are_streams_of_the_process_that_calls_them(
    serve: Serve, redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_jobs, "DIRECTORY", tmp_path)
    with trio.fail_after(60):
        async with celery_client(serve, redis, tmp_path) as queue:
            celery_jobs.add_tasks(queue.app)
            queue.app.conf.task_always_eager = True
            tasks = queue.app.tasks
            fine, bad, again = [(await in_thread(tasks[f"jobs.{name}"].delay)).id for name in ("fine", "bad", "again")]
            chained: Any = await in_thread(lambda: chain(tasks["jobs.fine"].s(2), tasks["jobs.fine"].s()).delay())
            for task_id in (fine, bad, again, chained.id, chained.parent.id):
                await queue.streams.wait(task_id)
            assert queue.streams.kinds(fine) == ["started 1", "completed 1"]
            assert queue.streams.kinds(bad) == ["started 1", "failed 1"]
            assert queue.streams.kinds(again) == ["started 1", "retrying 1", "started 2", "completed 2"]
            assert queue.streams.kinds(chained.id) == ["started 1", "completed 1"]
