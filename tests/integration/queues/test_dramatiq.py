"""`fanline.dramatiq`: what viewers see of Dramatiq's messages, with its own worker: threads here, and processes."""

import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import trio
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import CurrentMessage, SkipMessage
from dramatiq.middleware.middleware import Middleware

import fanline
import fanline.dramatiq
from tests.integration.queues.jobs.dramatiq_jobs import make_broker
from tests.integration.queues.jobs.streams import Streams, listening
from tests.integration.queues.jobs.worker_process import running_worker
from tests.support.servers.serve import Serve, serve_environ

pytestmark = pytest.mark.process


class _SkipsSome(Middleware):
    def before_process_message(self, broker: Any, message: Any) -> None:
        if message.actor_name == "skipped":
            raise SkipMessage


class Actors:
    """A broker with actors, and a worker."""

    def __init__(self) -> None:
        self.broker = StubBroker()
        self.broker.emit_after("process_boot")
        self.broker.add_middleware(CurrentMessage())
        fanline.dramatiq.install(self.broker, skip=["unwatched*"])
        self.broker.add_middleware(_SkipsSome())
        self.end = threading.Event()
        for function in (self.fine, self.bad, self.again, self.steps, self.sleep, self.skipped, self.unwatched):
            retries = 0 if function == self.bad else 3
            make = dramatiq.actor(broker=self.broker, min_backoff=50, max_retries=retries)
            setattr(self, function.__name__, make(function))

    def fine(self, count: int) -> int:
        task = fanline.current_task()
        assert task is not None
        for _ in task.track(range(count)):
            pass
        return count

    def bad(self) -> None:
        raise ValueError("bad input")

    def again(self) -> str:
        message = CurrentMessage.get_current_message()
        assert message is not None
        if message.options.get("retries", 0) < 1:
            raise OSError("disk full")
        return "at last"

    def steps(self) -> None:
        task = fanline.current_task()
        assert isinstance(task, fanline.SyncTask)
        while not self.end.is_set():
            task.log("step")
            time.sleep(0.01)

    def sleep(self) -> None:
        """Python code that knows nothing of Fanline."""
        while not self.end.is_set():
            time.sleep(0.01)

    def skipped(self) -> None:
        raise AssertionError

    def unwatched(self) -> None:
        assert fanline.current_task() is None


@pytest.fixture
def actors() -> Iterator[Any]:
    actors = Actors()
    worker = dramatiq.Worker(actors.broker, worker_timeout=50, worker_threads=4)
    worker.start()
    yield actors
    actors.end.set()
    worker.stop()
    actors.broker.close()


@asynccontextmanager
async def _streams(serve: Serve) -> AsyncIterator[Streams]:
    with trio.fail_after(60):
        async with listening(serve.url) as streams:
            yield streams


async def test_every_stream_of_dramatiq_ends_as_its_message_does(serve: Serve, actors: Any) -> None:
    async with _streams(serve) as streams:
        fine = actors.fine.send(5).message_id
        assert (await streams.wait(fine))["result"] == 5
        assert await streams.announced(fine) == ["started 1", "completed 1"]
        snapshot = await streams.snapshot(fine)
        assert (snapshot.title, snapshot.kind, snapshot.done) == ("fine", "dramatiq", 5)
        bad = actors.bad.send().message_id
        assert (await streams.wait(bad))["error"] == "ValueError: bad input"
        again = actors.again.send().message_id
        assert (await streams.wait(again))["result"] == "at last"
        assert await streams.announced(again) == ["started 1", "retrying 1", "started 2", "completed 2"]
        retrying = await streams.wait(again, "task_retrying")
        assert retrying["error"] == "OSError: disk full"
        assert retrying["delay"] > 0
        skipped = actors.skipped.send().message_id
        assert (await streams.wait(skipped))["error"] == "it was skipped"


@pytest.mark.parametrize("name", ["steps", "sleep"])
async def test_a_viewer_cancels_a_message_and_it_is_not_tried_again(serve: Serve, actors: Any, name: str) -> None:
    """One that reports stops there; another is interrupted, as by Dramatiq's time limit."""
    async with _streams(serve) as streams:
        message = getattr(actors, name).send()
        await streams.wait(message.message_id, "task_started")
        async with streams.client.task(message.message_id, by="ann") as task:
            await task.cancel()
        await streams.wait(message.message_id, "task_cancelled")
        snapshot = await streams.snapshot(message.message_id)
        assert (snapshot.by, snapshot.attempt) == ("ann", 1)
        assert "retrying 1" not in streams.kinds(message.message_id)


async def test_what_is_skipped_has_no_stream(serve: Serve, actors: Any) -> None:
    async with _streams(serve) as streams:
        unwatched, fine = actors.unwatched.send().message_id, actors.fine.send(1).message_id
        await streams.wait(fine)
        await trio.to_thread.run_sync(actors.broker.join, "default")
        assert streams.kinds(unwatched) == []


async def test_worker_processes_report_the_same_and_what_they_put_back(
    serve: Serve, redis: str, tmp_path: Path
) -> None:
    command = ["-m", "dramatiq", "tests.integration.queues.jobs.dramatiq_jobs", "--processes", "2", "--threads", "2"]
    env = serve_environ(serve.directory) | {"REDIS_URL": redis}
    running = running_worker(command, env, tmp_path / "log", lambda log: log.count("is ready for action") == 2)
    async with running as worker, _streams(serve) as streams:
        broker = make_broker(redis)

        def send(name: str, *arguments: Any) -> str:
            message = dramatiq.Message[Any]("default", name, arguments, {}, {})
            return broker.enqueue(message).message_id

        fine, bad, sleep = [send("fine", count) for count in range(1, 9)], send("bad"), send("sleep")
        for count, message_id in enumerate(fine, 1):
            assert (await streams.wait(message_id))["result"] == count
            assert await streams.announced(message_id) == ["started 1", "completed 1"]
        assert (await streams.wait(bad))["error"] == "ValueError: bad input"
        await streams.wait(sleep, "task_started")
        worker.send_signal(signal.SIGTERM)
        assert "Shutdown" in (await streams.wait(sleep, "task_retrying"))["error"]
        broker.close()
