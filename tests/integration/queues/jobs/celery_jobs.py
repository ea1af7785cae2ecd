"""A Celery app over Redis, for messages and results: what its worker imports, and its clients.

The URL is in $REDIS_URL, more settings as JSON in $CELERY_SETTINGS. A task that begins leaves a file in
$QUEUE_DIRECTORY, named after its ID.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery, signals
from celery.exceptions import Ignore, Reject

import fanline
import fanline.celery

redis.VERSION = max(redis.VERSION, (6, 1, 0))
"""Of the client library: arq demands one before 6, kombu one from 6.1 on, although it does without."""


def make_app(url: str) -> Celery:
    """An app without its tasks: what a client has."""
    app = Celery("jobs", broker=url, backend=url)
    app.conf.update(worker_prefetch_multiplier=1, task_track_started=True)
    app.conf.update(json.loads(os.environ.get("CELERY_SETTINGS", "{}")))
    fanline.celery.install(app)
    return app


DIRECTORY = Path(os.environ.get("QUEUE_DIRECTORY", "."))


def add_tasks(app: Celery) -> None:
    """What a worker has besides."""
    for function in (fine, plain, bad, again, kill, sleep, steps, nap, reject, ignore, replace, total):
        app.task(bind=True, name=f"jobs.{function.__name__}", max_retries=3)(function)
    app.task(bind=True, name="jobs.limited", time_limit=1)(sleep)
    app.task(bind=True, name="jobs.flaky", autoretry_for=(Exception,), retry_backoff=False, default_retry_delay=0)(
        flaky
    )
    app.task(bind=True, name="jobs.put_back", time_limit=1, acks_late=True, acks_on_timeout=False)(sleep_once)
    app.task(bind=True, name="jobs.late", acks_late=True)(late)
    app.task(bind=True, name="jobs.lost", acks_late=True, reject_on_worker_lost=True)(lost)
    app.task(bind=True, name="jobs.tick")(plain)
    app.task(bind=True, name="jobs.overlap", on_retry=wait_for_the_next_run)(overlap)
    signals.task_postrun.connect(note_end)


def begin(task: Any) -> fanline.SyncTask:
    stream = fanline.current_task()
    assert isinstance(stream, fanline.SyncTask)
    stream.log(f"run {task.request.retries + 1}")
    (DIRECTORY / "begun" / f"{task.request.id}-{task.request.retries}").touch()
    return stream


def fine(self: Any, count: int = 3) -> int:
    for _ in begin(self).track(range(count), stage="work"):
        pass
    return count


def plain(self: Any) -> str:
    return "knows nothing of Fanline"


def bad(self: Any) -> None:
    begin(self)
    raise ValueError("bad input")


def again(self: Any, countdown: float = 0) -> str:
    begin(self)
    if self.request.retries < 1:
        try:
            fail()
        except OSError as error:
            raise self.retry(exc=error, countdown=countdown) from None
    return "at last"


def overlap(self: Any) -> str:
    """Fails once. That run is over only when the next one runs, as in a pool of threads that is quick."""
    begin(self)
    if self.request.retries:
        wait_for(f"{self.request.id}-0-over")
        return "at last"
    raise self.retry(countdown=0, exc=OSError("disk full"))


def wait_for_the_next_run(self: Any, *_: Any) -> None:
    wait_for(f"{self.request.id}-1")


def wait_for(file: str) -> None:
    end = time.monotonic() + 60
    while not (DIRECTORY / "begun" / file).exists() and time.monotonic() < end:
        time.sleep(0.01)


def note_end(task_id: str, task: Any, **_: Any) -> None:
    """After Fanline has heard of it."""
    (DIRECTORY / "begun" / f"{task_id}-{task.request.retries}-over").touch()


def fail() -> None:
    raise OSError("disk full")


def flaky(self: Any) -> None:
    """Tried again for any exception."""
    steps(self)


def kill(self: Any) -> None:
    begin(self)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(self: Any) -> None:
    begin(self)
    time.sleep(300)


def nap(self: Any, seconds: float) -> None:
    begin(self)
    time.sleep(seconds)


def sleep_once(self: Any) -> str:
    """Its second run has the same number for Celery."""
    slept = DIRECTORY / "begun" / f"{self.request.id}-0"
    if not slept.exists():
        sleep(self)
    return "at last"


def late(self: Any) -> str:
    """Its worker is killed; the run that follows is tried again."""
    if not self.request.delivery_info["redelivered"] and not self.request.retries:
        sleep(self)
    return again(self)


def lost(self: Any) -> str:
    """Its process is killed, but not that of its second run, which has the same number for Celery."""
    if not (DIRECTORY / "begun" / f"{self.request.id}-0").exists():
        begin(self)
        wait_for(f"{self.request.id}-doomed")
        os.kill(os.getpid(), signal.SIGKILL)
    return "at last"


def total(self: Any, counts: list[int]) -> int:
    return sum(counts)


def steps(self: Any) -> None:
    """Reports every few milliseconds, for as long as it may."""
    stream = begin(self)
    while True:
        stream.log("step")
        time.sleep(0.01)


def reject(self: Any) -> None:
    raise Reject("no good", requeue=False)


def ignore(self: Any) -> None:
    self.update_state(
        state="FAILURE", meta={"exc_type": "ValueError", "exc_message": ["by hand"], "exc_module": "builtins"}
    )
    raise Ignore


def replace(self: Any) -> None:
    begin(self)
    raise self.replace(self.app.tasks["jobs.fine"].s(1))


if "QUEUE_DIRECTORY" in os.environ:
    app = make_app(os.environ["REDIS_URL"])
    add_tasks(app)
