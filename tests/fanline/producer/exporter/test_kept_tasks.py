"""What an exporter keeps of tasks that have ended while NATS does not store: for how long, how much, in which order."""

import pytest

from fanline.producer.exporter import kept_tasks
from fanline.producer.exporter.kept_tasks import TURNS
from fanline.producer.run.buffer import MAX_LINES
from fanline.producer.run.producer import Producer
from tests.fanline.producer.exporter.exported import NOW, Exported

KEEP = 60.0


@pytest.fixture
def outage() -> Exported:
    """An exporter that has lost its connection."""
    exported = Exported()
    exported.connect()
    exported.lose("gone")
    return exported


def run_task(exported: Exported, name: str, now: float = NOW, *, result: object = None) -> Producer:
    """One that is over at once."""
    producer = exported.add(name, keep=KEEP)
    producer.log("working", "stdout")
    if result is not None:
        producer.set_result(result)
    producer.end(None)
    exported.tasks.step(now)
    return producer


def ends(exported: Exported) -> list[str]:
    """The tasks whose ends are stored, in that order."""
    return [each.subject.rpartition(".")[2] for each in exported.stored if b"task_completed" in each.payload]


def test_the_end_of_a_task_is_stored_after_an_outage_of_almost_a_minute(outage: Exported) -> None:
    producer = run_task(outage, "job")
    assert producer.settled.done()
    outage.tasks.step(NOW + KEEP - 1)
    outage.connect(NOW + KEEP - 1)
    outage.store(NOW + KEEP - 1)
    assert ends(outage) == ["job"]


def test_after_that_time_it_is_given_up(outage: Exported, caplog: pytest.LogCaptureFixture) -> None:
    run_task(outage, "job")
    outage.tasks.step(NOW + KEEP)
    assert outage.done == ["job"]
    assert "were not stored within 60 seconds of its end and may be lost (gone)" in caplog.text


def test_the_end_of_the_program_waits_no_longer_than_a_task_lingers(outage: Exported) -> None:
    run_task(outage, "job")
    outage.tasks.abandon_all()
    assert outage.tasks.step(NOW + 1) == NOW + 5.0
    outage.tasks.step(NOW + 5.0)
    assert outage.done == ["job"]
    assert outage.rested == 1


def test_only_the_first_job_waits_for_a_server_that_does_not_answer() -> None:
    exported = Exported()
    exported.connect()
    first = exported.add("first", keep=KEEP)
    first.end(None)
    exported.tasks.step(NOW)
    assert not first.settled.done()
    exported.tasks.step(NOW + 5.0)
    assert first.settled.done()
    assert exported.done == []
    assert run_task(exported, "second", NOW + 5.0).settled.done()
    exported.store(NOW + 6.0)
    assert exported.done == ["first", "second"]
    third = exported.add("third")
    third.end(None)
    exported.tasks.step(NOW + 6.0)
    assert not third.settled.done()  # what was kept is stored, so there is something to wait for again


def test_a_backlog_is_stored_by_turns_and_in_the_order_of_the_ends(outage: Exported) -> None:
    names = [f"job-{number}" for number in range(3 * TURNS)]
    for name in names:
        run_task(outage, name)
    outage.connect(NOW + 1)
    outage.tasks.step(NOW + 1)
    first = [each for each in outage.nats.said() if each.subject.startswith("fanline.pub.")]
    assert len(first) == TURNS
    for each in first:
        outage.nats.answer(each)
    outage.store(NOW + 1)
    assert ends(outage) == names
    assert outage.done == names


def test_the_runs_of_one_task_come_in_their_order_out_of_a_backlog(outage: Exported) -> None:
    for attempt in (1, 2, 3):
        producer = outage.add("job", attempt=attempt, keep=KEEP)
        producer.end(None)
        outage.tasks.step(NOW)
    outage.connect(NOW + 1)
    outage.store(NOW + 1)
    told = [(each.payload.partition(b'"attempt":')[2][:1], b"task_completed" in each.payload) for each in outage.stored]
    assert told == [(b"1", False), (b"1", True), (b"2", False), (b"2", True), (b"3", False), (b"3", True)]


def test_of_too_many_tasks_the_oldest_are_given_up_with_one_warning_and_a_count(
    outage: Exported, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept_tasks, "MAX_TASKS", 10)
    for number in range(15):
        run_task(outage, f"job-{number}")
    assert outage.done == [f"job-{number}" for number in range(5)]
    lost = [message for message in caplog.messages if "may be lost" in message]
    assert len(lost) == 1
    assert lost[0].startswith("task job-0: 2 events and 1 more lines of output were not stored since at most ")
    outage.connect(NOW + 1)
    assert caplog.messages[-1] == "more tasks of which events may be lost: 4"
    outage.store(NOW + 1)
    assert ends(outage) == [f"job-{number}" for number in range(5, 15)]


def test_of_too_many_bytes_the_oldest_output_goes_and_every_end_stays(
    outage: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tasks, "MAX_BYTES", 300_000)
    for number in range(10):
        producer = outage.add(f"job-{number}", keep=KEEP)
        producer.log("x" * 99, "stdout")
        for _ in range(MAX_LINES // 20):
            producer.log("y" * 99, "stdout")
        producer.set_result("z" * 2_000)
        producer.end(None)
        outage.tasks.step(NOW)
    outage.connect(NOW + 1)
    outage.store(NOW + 1)
    assert ends(outage) == [f"job-{number}" for number in range(10)]
    whole = {each.subject for each in outage.stored if b"task_output" in each.payload}
    assert whole == {f"fanline.pub.task.job-{number}" for number in range(5, 10)}
    results = [b"zzz" in each.payload for each in outage.stored if b"task_completed" in each.payload]
    assert results == [False] * 5 + [True] * 5


def test_output_that_was_on_its_way_counts_and_goes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tasks, "MAX_BYTES", 2_000)
    exported = Exported()
    exported.connect()
    producer = exported.add("job", keep=KEEP)
    exported.store()
    producer.log("x" * 4_000, "stdout")
    exported.tasks.step(NOW + 1)
    assert any(b"xxx" in each.payload for each in exported.nats.said())
    exported.lose("gone", NOW + 1)
    producer.end(None)
    exported.tasks.step(NOW + 1)
    exported.connect(NOW + 2)
    exported.store(NOW + 2)
    assert ends(exported) == ["job"]
    assert not any(b"xxx" in each.payload for each in exported.stored)


def test_one_task_that_is_too_large_in_spite_of_that_is_given_up(
    outage: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tasks, "MAX_BYTES", 10)
    producer = run_task(outage, "job")
    assert producer.settled.done()
    assert outage.done == ["job"]
