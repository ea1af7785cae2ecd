"""What the jobs of the tests of RQ do."""

import os
import signal
import time
from pathlib import Path

from rq import Retry, get_current_job

import fanline


def begin() -> fanline.SyncTask:
    stream = fanline.current_task()
    assert isinstance(stream, fanline.SyncTask)
    stream.log("begun")
    return stream


def fine(count: int) -> int:
    for _ in begin().track(range(count), stage="work"):
        pass
    return count


def bad() -> None:
    begin()
    raise ValueError("bad input")


def again() -> str:
    """Fails once."""
    begin()
    job = get_current_job()
    assert job is not None
    if job.retries_left:
        raise OSError("disk full")
    return "at last"


def another() -> Retry | str:
    """Asks for one more run."""
    job = get_current_job()
    assert job is not None
    return "at last" if job.number_of_retries else Retry(max=2)


def kill(directory: str) -> None:
    """As soon as viewers have seen this run, for which a file is made."""
    begin()
    job = get_current_job()
    assert job is not None
    while not Path(directory, f"seen-{job.retries_left or 0}").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep() -> None:
    begin()
    time.sleep(300)


def steps() -> None:
    stream = begin()
    while True:
        stream.log("step")
        time.sleep(0.01)
