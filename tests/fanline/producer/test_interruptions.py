"""What a signal handler raises is meant for the job, even if it strikes while a value of the job is being read."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fanline.producer.checks import TaskSettings, check_settings
from fanline.producer.run.producer import Producer
from fanline.producer.running_task import SyncTask
from fanline.protocol.tasks.events import TaskEvent
from fanline.queues.job_run import JobRun


class TimeLimitError(Exception):
    """As Celery and RQ raise it."""


class _Interrupted:
    """A value that is being read when the time limit strikes."""

    def _strike(self, *_: object) -> Any:
        signal.raise_signal(signal.SIGUSR1)

    __str__ = __float__ = __gt__ = __iter__ = _strike


class _Limits:
    def strike(self, number: int, frame: object) -> None:
        raise TimeLimitError


def _strike(number: int, frame: object) -> None:
    raise TimeLimitError


@pytest.fixture(params=[_strike, _Limits().strike])
def _limited(request: pytest.FixtureRequest) -> Iterator[None]:
    earlier = signal.signal(signal.SIGUSR1, request.param)
    yield
    signal.signal(signal.SIGUSR1, earlier)


def _producer() -> Producer:
    return Producer(check_settings(TaskSettings("job", None, None, 1, 10.0, None, None, 5.0)))


@pytest.mark.usefixtures("_limited")
@pytest.mark.parametrize(
    "report",
    [
        lambda task: task.log(_Interrupted()),
        lambda task: task.progress(_Interrupted()),
        lambda task: task.progress(message=_Interrupted()),
        lambda task: task.result(_Interrupted()),
        lambda task: task.result({"a": [_Interrupted()]}),
        lambda task: task.ask("Deploy?", options=_Interrupted()),
    ],
)
def test_a_time_limit_that_strikes_within_a_report_reaches_the_job(report: Callable[[SyncTask], object]) -> None:
    with pytest.raises(TimeLimitError):
        report(SyncTask(_producer()))


@pytest.mark.usefixtures("_limited")
def test_a_run_ends_although_a_time_limit_strikes_while_its_result_is_read() -> None:
    producer = _producer()
    run = JobRun(producer, SyncTask(producer), results=True)
    with pytest.raises(TimeLimitError):
        run.finish(result=_Interrupted())
    run.leave()
    assert [event.event for event in producer.take(1e12, 10)] == [TaskEvent.STARTED, TaskEvent.COMPLETED]
