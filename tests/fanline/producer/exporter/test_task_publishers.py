"""All tasks of an exporter: when each has its turn, how long it lingers, and what is said of outages."""

import logging

import msgspec
import pytest

from fanline.nats.loop import STABLE_SECONDS
from fanline.producer.exporter.task_publishers import FIRST_ATTEMPT_SECONDS, NEVER_REACHED_SECONDS, REST_SECONDS
from fanline.protocol.nats.replies import Complaint, ComplaintKind
from tests.fanline.producer.exporter.exported import NOW, Exported

NEVER = float("inf")


def test_a_task_that_has_ended_and_is_stored_is_done_and_its_job_goes_on() -> None:
    exported = Exported()
    exported.connect()
    producer = exported.add()
    exported.store()
    assert exported.done == []
    producer.end(None)
    exported.store()
    assert exported.done == ["job"]
    assert producer.settled.done()


def test_the_connection_is_kept_for_a_second_after_the_last_task_so_that_the_next_one_finds_it() -> None:
    exported = Exported()
    exported.connect()
    exported.add().end(None)
    exported.store()
    assert exported.tasks.step(NOW + 0.2) == NOW + REST_SECONDS
    exported.add("next").end(None)
    exported.store(NOW + 0.9)
    assert exported.done == ["job", "next"]
    assert exported.tasks.step(NOW + REST_SECONDS) == NOW + 0.9 + REST_SECONDS
    assert exported.rested == 0
    exported.tasks.step(NOW + 0.9 + REST_SECONDS)
    assert exported.rested == 1


def test_there_is_no_rest_when_the_program_ends() -> None:
    exported = Exported()
    exported.connect()
    exported.add().end(None)
    exported.store()
    exported.tasks.abandon_all()
    exported.tasks.step(NOW)
    assert exported.rested == 1


def test_an_outage_without_a_task_is_no_concern_of_the_program(caplog: pytest.LogCaptureFixture) -> None:
    exported = Exported()
    exported.connect()
    exported.add().end(None)
    exported.store()
    exported.lose("it is away")
    assert caplog.messages == []


def test_what_is_reported_before_there_is_a_connection_is_published_with_the_first_one() -> None:
    exported = Exported()
    exported.add("one")
    exported.add("two")
    assert exported.tasks.step(NOW) == NEVER
    exported.connect()
    assert exported.store() == ["fanline.pub.task.one", "fanline.pub.task.two"]


def test_the_next_run_of_a_task_begins_when_the_last_is_stored() -> None:
    exported = Exported()
    exported.connect()
    runs = [exported.add(attempt=number) for number in (1, 2, 3)]
    for number, producer in enumerate(runs):
        exported.store()
        assert _attempts(exported) == list(range(1, number + 2))
        producer.end(None)
        exported.store()
        assert exported.done == ["job"] * (number + 1)


def _attempts(exported: Exported) -> list[int]:
    """Which attempts have been reported."""
    return sorted({msgspec.json.decode(each.payload)["d"]["attempt"] for each in exported.stored})


def test_what_is_not_stored_in_time_is_given_up_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    exported = Exported()
    exported.connect()
    producer = exported.add(linger=3.0)
    producer.log("a\nb", "stdout")
    producer.end(None)
    exported.tasks.step(NOW)
    exported.lose("gone", NOW + 1)
    assert producer.settled.done()  # the job does not wait for a server that is gone
    assert exported.tasks.step(NOW + 2.9) == NOW + 3.0
    exported.tasks.step(NOW + 3.0)
    assert exported.done == ["job"]
    assert caplog.messages[-1] == (
        "task job: 2 events and 2 more lines of output were not stored within 3 seconds of its end "
        "and may be lost (gone)"
    )


def test_giving_up_a_task_that_loses_nothing_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    exported = Exported()
    exported.connect()
    exported.add(linger=3.0)
    exported.store()
    exported.lose("gone")
    exported.tasks.abandon_all()
    exported.tasks.step(NOW)
    exported.tasks.step(NOW + 3.0)
    assert exported.done == ["job"]
    assert caplog.messages == ["task events are waiting for NATS: gone"]


def test_a_task_does_not_linger_for_a_server_that_was_never_reached() -> None:
    exported = Exported()
    producer = exported.add(linger=60.0)
    exported.tasks.lost("nobody there", NOW)
    producer.end(None)
    assert exported.tasks.step(NOW) == NOW + NEVER_REACHED_SECONDS
    assert producer.settled.done()
    exported.tasks.step(NOW + NEVER_REACHED_SECONDS)
    assert exported.done == ["job"]


def test_the_first_attempt_to_connect_may_take_its_time() -> None:
    exported = Exported()
    producer = exported.add(linger=60.0)
    producer.end(None)
    assert exported.tasks.step(NOW) == NOW + FIRST_ATTEMPT_SECONDS
    assert not producer.settled.done()
    exported.tasks.lost("nobody there", NOW + 0.1)
    assert producer.settled.done()
    assert exported.tasks.step(NOW + 0.1) == NOW + NEVER_REACHED_SECONDS


def test_an_outage_is_reported_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    exported = Exported()
    exported.add()
    exported.tasks.lost("cannot connect", NOW)
    exported.tasks.lost("cannot connect", NOW)
    exported.connect()
    assert caplog.messages == [
        "task events are waiting for NATS: cannot connect",
        "connected to NATS again: task events are being published",
    ]


def test_after_an_outage_a_job_waits_for_its_events_again() -> None:
    exported = Exported()
    producer = exported.add()
    exported.tasks.lost("cannot connect", NOW)
    exported.connect()
    exported.store()
    producer.end(None)
    exported.tasks.step(NOW)
    assert not producer.settled.done()


@pytest.mark.parametrize(("seconds", "warnings"), [(STABLE_SECONDS, 1), (STABLE_SECONDS + 1, 2)])
def test_only_after_a_stable_connection_the_next_loss_is_an_outage_of_its_own(
    seconds: float, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    exported = Exported()
    exported.add()
    exported.tasks.lost("a", NOW)
    exported.connect(NOW)
    exported.lose("b", NOW + seconds)
    exported.tasks.lost("c", NOW + seconds)
    assert len(caplog.messages) == warnings


def test_leaving_a_server_that_is_about_to_stop_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    exported = Exported()
    exported.connect()
    producer = exported.add()
    producer.end(None)
    exported.tasks.step(NOW)
    exported.lose(None)
    assert caplog.messages == []
    assert not producer.settled.done()
    exported.connect()
    exported.store()
    assert exported.done == ["job"]


def test_what_nats_does_not_permit_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    exported = Exported()
    exported.connect()
    exported.tasks.denied(Complaint(ComplaintKind.SUBSCRIBE_DENIED, "may not hear", "fanline.ctl.task.job"))
    assert caplog.messages == ["may not hear"]


def test_a_job_does_not_wait_for_events_that_nats_does_not_permit() -> None:
    exported = Exported()
    exported.connect()
    producer = exported.add()
    producer.end(None)
    exported.tasks.step(NOW)
    exported.tasks.denied(Complaint(ComplaintKind.PUBLISH_DENIED, "may not", "fanline.pub.task.job"))
    assert producer.settled.done()


def test_the_end_of_the_program_sends_what_is_buffered_without_a_final_event() -> None:
    exported = Exported()
    exported.connect()
    exported.add("one")
    exported.add("two")
    exported.tasks.abandon_all()
    assert len(exported.store()) == 2
    assert exported.done == ["one", "two"]


def test_a_wake_for_a_task_that_is_done_does_no_harm() -> None:
    exported = Exported()
    exported.connect()
    producer = exported.add()
    producer.end(None)
    exported.store()
    exported.tasks.wake(producer)
    assert exported.tasks.step(NOW) == NOW + REST_SECONDS
