"""A Celery worker during an outage of NATS: it goes on working, and no stream is left without its end."""

from pathlib import Path
from typing import Any

import pytest
import trio
from celery.result import AsyncResult

from fanline.errors import ServerError
from fanline.protocol.tasks.states import TaskState
from tests.integration.queues.jobs.celery_worker import READY, WORKER_LOG, CeleryQueue, celery_queue
from tests.support.nats.server import running_nats
from tests.support.servers.serve import running_serve, wait_until

OUTAGE_SECONDS = 5.5
"""How long NATS is away after the last end: longer than a job, or the end of a process, waits for it."""
SAME = {"SUCCESS": TaskState.COMPLETED, "FAILURE": TaskState.FAILED, "REVOKED": TaskState.CANCELLED}
NAMES = ("fine", "bad", "again", "plain") * 10


async def test_every_stream_ends_as_celery_reports_although_nats_was_frozen_and_killed_meanwhile(
    redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(170):
        async with running_nats() as nats, running_serve(1, ("--nats", nats.url)) as serve:
            monkeypatch.setenv("FANLINE_NATS", nats.url)
            env = {"FANLINE_NATS": nats.url}
            async with celery_queue(serve, redis, tmp_path, "-c", "2", env=env) as queue:
                await queue.streams.wait(queue.send("fine").id)
                nats.pause()
                results = await _run_tasks(queue)
                nats.resume()
                await _wait_same(queue, results)
                nats.kill()
                results = await _run_tasks(queue)
                await nats.start()
                await _wait_same(queue, results)
    log = (tmp_path / WORKER_LOG).read_text()
    assert "may be lost" not in log
    assert "was not published" not in log
    assert log.count("task events are waiting for NATS") <= 2 * 2  # for each process once in each outage


async def _run_tasks(queue: CeleryQueue) -> list[AsyncResult[Any]]:
    """All of them are over while NATS is away, which it is for some time after that."""
    expired = queue.send("fine", expires=-1)
    results = [expired, *(queue.send(name) for name in NAMES)]
    await wait_until(lambda: all(queue.state(each) in READY for each in results), 60)
    await trio.sleep(OUTAGE_SECONDS)
    return results


async def _wait_same(queue: CeleryQueue, results: list[AsyncResult[Any]]) -> None:
    """Wait until each stream is in the state that Celery reports."""
    for result in results:
        wanted = SAME[queue.state(result)]
        while await _seen(queue, result) is not wanted:
            await trio.sleep(0.1)  # a listener for all tasks has missed what came before its server listened again


async def _seen(queue: CeleryQueue, result: AsyncResult[Any]) -> TaskState | None:
    try:
        return (await queue.streams.snapshot(result.id)).state
    except ServerError:  # it has no connection to NATS yet
        return None
