"""`fanline.tqdm` behaves like tqdm, and viewers see the bar."""

import io
from collections.abc import Iterator
from typing import Any, assert_type

import pytest
import tqdm as real

import fanline
from fanline.producer.calls import TaskCancelled
from fanline.producer.checks import TaskSettings, check_settings
from fanline.producer.reporters.tqdm import tqdm, trange
from fanline.producer.run.producer import Producer
from fanline.producer.running_task import SyncTask
from fanline.protocol.tasks.events import TaskEvent

_FAST: dict[str, Any] = {"mininterval": 0, "miniters": 1}


def what_a_type_checker_sees() -> None:
    for number in fanline.tqdm([1, 2], desc="Sum", task="sum"):
        assert_type(number, int)
    for text in fanline.tqdm(iterable=("a", "b")):
        assert_type(text, str)
    assert_type(next(iter(fanline.trange(3, leave=False))), int)
    with fanline.tqdm(["a"]) as bar:
        assert_type(bar, fanline.tqdm[str])
        assert_type(bar.task, fanline.AsyncTask | fanline.SyncTask | None)
    with fanline.tqdm(total=3) as counter:
        counter.update(2)
        counter.set_description("Rest")


def new_producer(task_id: str = "job") -> Producer:
    return Producer(check_settings(TaskSettings(task_id, None, None, 1, 10.0, None, None, 0.0)))


def events_of(producer: Producer) -> list[tuple[str, dict[str, Any]]]:
    """The events of the task so far. Of successive progress there is only the newest."""
    return [(message.event, message.data) for message in producer.take(1e300, 1000)]


def progress(producer: Producer) -> list[dict[str, Any]]:
    return [data for event, data in events_of(producer) if event == TaskEvent.PROGRESS]


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> list[Producer]:
    """The producers of the tasks that bars start, as if there were a server."""
    found: list[Producer] = []

    def export(producer: Producer) -> None:
        found.append(producer)
        producer.settle()

    monkeypatch.setattr("fanline.producer.task.export", export)
    monkeypatch.setattr("fanline.producer.reporters.tqdm.has_server", lambda: True)
    return found


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.producer.reporters.tqdm.has_server", lambda: False)


@pytest.mark.usefixtures("no_server")
def test_without_a_server_it_draws_what_tqdm_draws() -> None:
    drawings = []
    for kind in (real.tqdm, tqdm):
        file = io.StringIO()
        with kind(total=3, desc="Sum", file=file, bar_format="{desc}{n}/{total}", **_FAST) as bar:
            bar.update(2)
            bar.set_description("Rest")
            bar.update()
        drawings.append(file.getvalue())
    assert drawings[0] == drawings[1]
    assert list(trange(2, 5, file=io.StringIO())) == [2, 3, 4]


def test_a_bar_reports_its_progress_to_its_task() -> None:
    producer = new_producer()
    bar = tqdm(total=10, desc="Copy", task=SyncTask(producer), file=io.StringIO(), **_FAST)
    assert progress(producer) == [{"done": 0, "total": 10, "stage": "Copy"}]
    bar.update(3)
    assert progress(producer) == [{"done": 3, "total": 10, "stage": "Copy"}]
    bar.n = 4
    bar.set_description("Check")
    assert progress(producer) == [{"done": 4, "total": 10, "stage": "Check"}]
    bar.close()
    assert producer.ended is None


def test_the_last_items_are_reported_even_if_they_were_too_quick_to_be_drawn() -> None:
    producer = new_producer()
    assert list(tqdm(range(1000), task=SyncTask(producer), file=io.StringIO(), mininterval=60)) == list(range(1000))
    assert progress(producer)[-1] == {"done": 1000, "total": 1000}


def test_a_bar_reports_to_the_task_around_it(producers: list[Producer]) -> None:
    with fanline.Task("outer"):
        for _ in tqdm("abc", file=io.StringIO()):
            pass
    (producer,) = producers
    assert progress(producer)[-1] == {"done": 3, "total": 3}


def test_a_bar_outside_of_any_task_starts_its_own(producers: list[Producer]) -> None:
    for _ in tqdm("abc", desc="Count words", file=io.StringIO()):
        assert [producer.ended for producer in producers] == [None]
    (producer,) = producers
    assert producer.id.startswith("Count-words-")
    events = events_of(producer)
    assert (events[0][0], events[0][1]["title"]) == (TaskEvent.STARTED, "Count words")
    assert [event for event, _ in events] == [TaskEvent.STARTED, TaskEvent.PROGRESS, TaskEvent.COMPLETED]


def test_of_nested_bars_the_outermost_reports(producers: list[Producer]) -> None:
    for _ in trange(2, file=io.StringIO()):
        for _ in trange(5, file=io.StringIO()):
            pass
    (producer,) = producers
    assert progress(producer)[-1] == {"done": 2, "total": 2}
    list(trange(3, file=io.StringIO()))
    assert len(producers) == 2


def test_an_exception_in_the_iterable_fails_the_bars_own_task(producers: list[Producer]) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(tqdm(broken(), file=io.StringIO()))
    assert events_of(producers[0])[-1] == (TaskEvent.FAILED, {"error": "OSError: disk full"})


def test_an_exception_in_the_with_block_fails_the_bars_own_task(producers: list[Producer]) -> None:
    with pytest.raises(ZeroDivisionError), tqdm(total=3, file=io.StringIO()) as bar:
        bar.update(1 // 0)
    assert events_of(producers[0])[-1][0] == TaskEvent.FAILED


def test_an_exception_that_was_being_handled_before_the_bar_does_not_fail_it(producers: list[Producer]) -> None:
    try:
        int("x")
    except ValueError:
        list(trange(3, file=io.StringIO()))
    assert events_of(producers[0])[-1][0] == TaskEvent.COMPLETED


def test_a_loop_that_is_left_early_cancels_the_bars_own_task(producers: list[Producer]) -> None:
    for number in trange(9, file=io.StringIO()):
        if number == 3:
            break
    events = events_of(producers[0])
    assert events[-1][0] == TaskEvent.CANCELLED
    assert events[-2][1]["done"] == 3


def test_a_viewers_cancel_ends_the_loop(producers: list[Producer]) -> None:
    seen = []
    with pytest.raises(TaskCancelled, match="by ann"):
        for number in trange(9, file=io.StringIO(), **_FAST):
            seen.append(number)
            if number == 3:
                producers[0].handle_call("cancel", {}, "ann", lambda _: None)
    assert seen == [0, 1, 2, 3]
    assert events_of(producers[0])[-1] == (TaskEvent.CANCELLED, {"by": "ann"})


def test_tqdms_monitor_does_not_swallow_a_cancel() -> None:
    producer = new_producer()
    bar = tqdm(total=9, task=SyncTask(producer), file=io.StringIO(), **_FAST)
    producer.handle_call("cancel", {}, "ann", lambda _: None)
    bar.refresh(nolock=True)
    with pytest.raises(TaskCancelled):
        bar.update()
    bar.close()


@pytest.mark.parametrize("total", [float("inf"), -1, None])
def test_a_bar_whose_progress_is_invalid_still_works(total: float | None) -> None:
    producer = new_producer()
    with tqdm(total=total, task=SyncTask(producer), file=io.StringIO(), **_FAST) as bar:
        bar.update(-5)
        bar.update(7)
    assert bar.n == 2


def test_a_disabled_bar_reports_nothing(producers: list[Producer]) -> None:
    assert list(tqdm("abc", disable=True)) == ["a", "b", "c"]
    assert producers == []
