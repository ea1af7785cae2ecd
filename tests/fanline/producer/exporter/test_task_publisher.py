"""The exporter's logic for one task: no socket, no thread, and the clock is a number."""

from typing import Any

import msgspec
import pytest

from fanline.base.backoff import Backoff
from fanline.producer.checks import TaskSettings
from fanline.producer.exporter.in_flight import WINDOW
from fanline.producer.exporter.task_publisher import ACK_SECONDS, PublisherState, TaskPublisher
from fanline.producer.run.producer import Producer
from fanline.protocol.nats.replies import Complaint, ComplaintKind
from tests.fanline.nats.played import ACK, PlayedNats, Said

PUB, BEAT, CTL = "fanline.pub.task.job", "fanline.beat.task.job", "fanline.ctl.task.job"
MESSAGE, RECORD = "$JS.API.DIRECT.GET.FANLINE_task", "$JS.API.DIRECT.GET.KV_fanline_tasks"
NOW = 1e9  # later than the monotonic clock of whoever runs the tests: all that is buffered is due
NEVER = float("inf")
REFUSED = b'{"error":{"code":503,"description":"no space left"}}'


class Run:
    """One publisher, connected to a played NATS."""

    def __init__(
        self,
        *,
        attempt: int | None = 1,
        heartbeat: float = 30.0,
        previous: TaskPublisher | None = None,
        max_payload: int = 1 << 20,
    ) -> None:
        self.nats = PlayedNats(max_payload=max_payload)
        self.warnings: list[str] = []
        self.replies: list[tuple[str, bytes]] = []
        self.producer = Producer(TaskSettings("job", None, None, attempt, heartbeat, None, None, 5.0))
        self.publisher = TaskPublisher(
            self.producer,
            previous,
            self.nats.requests,
            lambda subject, payload: self.replies.append((subject, payload)),
            lambda text, reason: self.warnings.append(text),
        )
        self.publisher._backoff = Backoff(0.1, 5.0, uniform=lambda least, most: most)
        self.connect()

    def connect(self, now: float = NOW) -> None:
        self.nats.connect()
        self.publisher.connected(now)

    def step(self, now: float = NOW, subject: str | None = PUB) -> list[Said]:
        """What is published now."""
        self.publisher.step(now)
        return self.nats.said(subject)

    def store(self, now: float = NOW) -> list[Said]:
        """What is published until nothing more comes, all of it acknowledged."""
        stored = list[Said]()
        while said := self.step(now):
            for each in said:
                self.nats.answer(each)
            stored += said
        return stored

    def log(self, events: int) -> None:
        """Report lines of output that become so many events."""
        for number in range(events):
            self.producer.log(f"line {number}", ("stdout", "stderr")[number % 2])


def _events(said: list[Said]) -> list[str]:
    return [msgspec.json.decode(each.payload)["e"].removeprefix("task_") for each in said]


def _id(said: Said) -> bytes:
    return said.headers.partition(b"Nats-Msg-Id: ")[2].partition(b"\r\n")[0]


def _data(said: Said) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(said.payload)["d"]
    return data


def test_events_are_published_in_order_each_with_an_id_a_serial_number_and_its_attempt() -> None:
    run = Run(attempt=3)
    run.producer.pause(None)
    run.producer.end(None)
    said = run.store()
    assert _events(said) == ["started", "paused", "completed"]
    assert len({_id(each) for each in said}) == 3
    assert _id(said[0]).startswith(b"/task:job/")
    assert {_data(each)["attempt"] for each in said} == {3}
    serials = [_data(each)["serial"] for each in said]
    assert [number for _, number in serials] == [1, 2, 3]
    assert len({producer for producer, _ in serials}) == 1


def test_two_runs_of_a_task_never_have_the_same_serial_numbers() -> None:
    assert _data(Run().store()[0])["serial"] != _data(Run().store()[0])["serial"]


def test_it_has_finished_when_the_task_has_ended_and_everything_is_stored() -> None:
    run = Run()
    (started,) = run.step()
    run.nats.answer(started)
    run.publisher.step(NOW)
    assert run.publisher.state is PublisherState.PUBLISHING
    run.producer.end(None)
    (completed,) = run.step()
    run.publisher.step(NOW)
    assert not run.producer.settled.done()
    run.nats.answer(completed)
    assert run.publisher.due <= NOW
    run.publisher.step(NOW)
    assert run.publisher.finished
    assert run.publisher.due == NEVER


def test_it_has_not_finished_while_progress_waits_for_its_turn() -> None:
    run = Run()
    run.producer.progress(1, None, None, None, None)
    run.store()
    run.producer.progress(2, None, None, None, None)
    run.producer.end(None)
    assert run.step() == []
    assert not run.publisher.finished
    assert NOW < run.publisher.due < NOW + 1
    assert _events(run.store(run.publisher.due)) == ["progress", "completed"]


# --- what is in flight together -----------------------------------------------------------------------------------


def test_output_is_in_flight_together_up_to_a_window() -> None:
    run = Run()
    run.store()
    run.log(2 * WINDOW)
    said = run.step()
    assert len(said) == WINDOW
    assert run.publisher.due > NOW
    assert run.step() == []
    for each in said[:3]:
        run.nats.answer(each)
    assert len(run.step()) == 3
    for each in said[4:]:
        run.nats.answer(each)
    assert run.step() == []  # the window begins with the oldest


def test_an_event_other_than_output_is_in_flight_alone() -> None:
    run = Run()
    run.producer.pause(None)
    run.log(2)
    run.producer.resume()
    run.producer.end(None)
    flights = []
    while said := run.step():
        flights.append(_events(said))
        for each in said[1:]:
            run.nats.answer(each)
        assert run.step() == []
        assert run.publisher.due > NOW
        run.nats.answer(said[0])
    assert flights == [["started"], ["paused"], ["output", "output"], ["resumed"], ["completed"]]
    assert run.publisher.finished


def test_what_is_reported_while_an_event_waits_for_the_output_before_it_wakes_nobody() -> None:
    run = Run()
    run.store()
    run.log(1)
    (output,) = run.step()
    woken: list[int] = []
    run.producer.attach(lambda: woken.append(1))
    run.producer.pause(None)
    assert woken == [1]
    run.step()
    run.producer.resume()
    run.log(2)
    assert woken == [1]
    run.nats.answer(output)
    assert _events(run.store()) == ["paused", "resumed", "output", "output"]


def test_an_event_of_many_messages_does_not_exceed_the_window_either() -> None:
    run = Run(max_payload=700)
    run.store()
    run.producer.log("\n".join("x" * 150 for _ in range(190)), "stdout")
    assert len(run.step()) == WINDOW
    assert run.step() == []
    run.producer.end(None)
    assert run.step() == []
    run.connect()
    said = run.step()
    assert len(said) == WINDOW
    for each in said:
        run.nats.answer(each)
    assert _events(run.store()) == ["output"] * 90 + ["completed"]


# --- calls --------------------------------------------------------------------------------------------------------


def test_calls_and_pings_are_answered_from_the_first_step_to_the_end() -> None:
    run = Run()
    run.publisher.step(NOW)
    (sid,) = [sid for sid, (subject, _, _) in run.nats.requests.subscriptions.by_sid.items() if subject == CTL]
    call = {"v": 1, "t": "call", "c": "task:job", "e": "paint", "u": "ann"}
    run.nats.deliver(sid, CTL, msgspec.json.encode(call), "reply.here")
    assert run.replies[0][0] == "reply.here"
    assert b"does not support `paint`" in run.replies[0][1]
    for data, by in (({"by": "bob"}, "bob"), (None, "ann"), ({"by": 3}, "ann")):
        calls = run.producer.open_calls()
        run.nats.deliver(sid, CTL, msgspec.json.encode({**call, "d": data}), "reply.here")
        taken = calls.next().result(0)
        assert taken is not None
        assert taken.by == by
    for ignored in (b"garbage", b'{"v":1,"t":"call"}'):
        run.nats.deliver(sid, CTL, ignored, "reply.here")
    assert len(run.replies) == 1
    run.nats.deliver(sid, CTL, msgspec.json.encode(call), "")  # the engine wants replies: this is somebody else's
    assert len(run.replies) == 1
    run.nats.deliver(sid, CTL, b'{"v":1,"t":"ping"}', "reply.here")
    assert run.replies[1:] == [("reply.here", b'{"v":1,"t":"pong"}')]
    run.publisher.give_up()
    run.nats.said()
    assert run.nats.commands[-1] == b"UNSUB %d" % sid


# --- attempts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "record", "attempt"),
    [
        (None, None, 1),
        (b'{"v":1,"e":"task_completed","d":{"attempt":4}}', None, 5),
        (b'{"v":1,"e":"task_created","d":{"attempt":4}}', None, 4),
        (b'{"v":1,"e":"task_completed"}', b'{"snapshot":{"state":"completed","attempt":7}}', 8),
        (None, b'{"snapshot":{"state":"queued","attempt":7}}', 7),
        (b"\xff", b"[]", 2),
    ],
)
def test_the_attempt_follows_the_newest_message_and_the_task_record(
    message: bytes | None, record: bytes | None, attempt: int
) -> None:
    run = Run(attempt=None)
    asked = {each.subject: each for each in run.step(subject=None)}
    assert _events([each for each in asked.values() if each.subject == PUB]) == []  # before the attempt is known
    for subject, payload in ((MESSAGE, message), (RECORD, record)):
        if payload is None:
            run.nats.answer_status(asked[subject], 404)
        else:
            run.nats.answer(asked[subject], payload)
        assert run.publisher.due <= NOW
        run.publisher.step(NOW)
    assert run.producer.attempt == attempt
    assert _events(run.nats.said(PUB)) == ["started"]


def test_calls_are_heard_once_the_attempt_is_known_and_a_beat_says_so() -> None:
    run = Run(attempt=None)
    asked = run.step(subject=None)
    assert not any(b"fanline.ctl." in command for command in run.nats.commands)
    for each in asked:
        if each.subject in (MESSAGE, RECORD):
            run.nats.answer_status(each, 404)
    assert [each.subject for each in run.step(subject=BEAT)] == [BEAT]
    assert any(command.startswith(b"SUB fanline.ctl.task.job ") for command in run.nats.commands)


def test_without_a_stream_the_attempt_is_asked_for_again_after_a_delay() -> None:
    run = Run(attempt=None)
    asked = run.step(subject=MESSAGE)
    run.nats.answer_status(asked[0], 503)
    run.publisher.step(NOW)
    assert run.warnings == [
        "NATS is not storing the events of task job: it has no stream FANLINE_task, or JetStream is unavailable (503)"
    ]
    assert run.publisher.troubled
    assert run.publisher.due - NOW == pytest.approx(0.1, abs=1e-5)
    assert run.step(NOW + 0.05, MESSAGE) == []
    asked = run.step(NOW + 0.1, subject=None)
    for each in asked:
        if each.subject in (MESSAGE, RECORD):
            run.nats.answer_status(each, 404)
    (started,) = run.step(NOW + 0.1)
    run.nats.answer(started, REFUSED)
    assert run.step(NOW + 0.1) == []  # the delay begins anew, with the shortest
    assert run.publisher.due - NOW == pytest.approx(0.2, abs=1e-5)


def test_the_attempt_is_asked_for_again_on_a_new_connection() -> None:
    run = Run(attempt=None)
    assert len(run.step(subject=MESSAGE)) == 1
    assert run.step(subject=MESSAGE) == []
    run.connect()
    assert len(run.step(subject=MESSAGE)) == 1


def test_a_silent_jetstream_is_asked_for_the_attempt_again() -> None:
    run = Run(attempt=None)
    run.publisher.step(NOW)
    assert run.publisher.due == NOW + 10.0  # the next beat and the deadline of the question
    run.publisher.step(NOW + 10.0)
    assert "did not answer" in run.warnings[0]
    run.nats.said()
    assert len(run.step(NOW + 10.1, MESSAGE)) == 1


def test_a_run_waits_for_the_end_of_an_earlier_run_of_the_same_task() -> None:
    first = Run()
    second = Run(attempt=None, previous=first.publisher)
    assert second.step(subject=None) == []
    assert second.publisher.state is PublisherState.WAITING
    assert second.publisher.due == NEVER
    first.publisher.give_up()
    assert {MESSAGE, RECORD, BEAT} == {each.subject for each in second.step(subject=None)}


# --- heartbeats ---------------------------------------------------------------------------------------------------


def test_heartbeats_are_sent_three_times_in_the_interval_that_the_task_declares() -> None:
    run = Run(heartbeat=30.0)
    assert len(run.step(NOW, BEAT)) == 1
    assert run.publisher.due == NOW + 10.0
    assert run.step(NOW + 9.9, BEAT) == []
    assert len(run.step(NOW + 10.0, BEAT)) == 1


def test_a_new_connection_begins_with_a_heartbeat() -> None:
    run = Run()
    run.step()
    run.connect(NOW + 1)
    assert len(run.step(NOW + 1, BEAT)) == 1


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_after_a_lost_connection_what_is_not_acknowledged_is_published_again_with_the_same_ids() -> None:
    run = Run()
    run.store()
    run.log(3)
    run.producer.end(None)
    said = run.step()
    run.nats.answer(said[1])
    run.nats.disconnect()
    run.connect()
    again = run.step()
    assert [each.payload for each in again] == [said[0].payload, said[2].payload]
    assert [_id(each) for each in again] == [_id(said[0]), _id(said[2])]
    for each in again:
        run.nats.answer(each)
    assert _events(run.store()) == ["completed"]
    assert run.publisher.finished


def test_what_jetstream_refuses_is_published_again_after_a_delay_that_grows() -> None:
    run, now = Run(heartbeat=86_400.0), NOW
    (said,) = run.step()
    delays = []
    for _ in range(12):
        run.nats.answer(said, REFUSED)
        assert run.step(now) == []
        run.producer.pause(None)
        assert run.step(now) == []  # and nothing else either
        delays.append(run.publisher.due - now)
        now = run.publisher.due
        said = run.step(now)[0]
    assert run.warnings[0] == "NATS is not storing the events of task job: JetStream refused: no space left"
    assert delays == pytest.approx([min(5.0, 0.1 * 2**number) for number in range(12)], abs=1e-5)
    run.nats.answer(said)
    assert not run.publisher.troubled
    run.nats.answer(said, REFUSED)  # a second answer is nobody's
    run.publisher.step(now)
    run.producer.pause(None)
    (said,) = run.step(now)[-1:]
    run.nats.answer(said, REFUSED)
    run.publisher.step(now)
    assert run.publisher.due - now == pytest.approx(0.1, abs=1e-5)


def test_without_an_acknowledgement_for_a_while_everything_is_published_again() -> None:
    run = Run(heartbeat=900.0)
    (said,) = run.step()
    assert run.publisher.due == NOW + ACK_SECONDS
    assert run.step(NOW + ACK_SECONDS - 0.1) == []
    (again,) = run.step(NOW + ACK_SECONDS)
    assert _id(again) == _id(said)
    assert run.publisher.due == NOW + 2 * ACK_SECONDS
    assert "JetStream does not answer" in run.warnings[0]


def test_a_late_acknowledgement_of_an_earlier_try_counts_and_nothing_is_remembered_of_the_later_ones() -> None:
    run = Run(heartbeat=86_400.0)
    (said,) = run.step()
    for number in range(1, 5):
        run.step(NOW + number * ACK_SECONDS)
    run.producer.end(None)
    run.nats.answer(said)
    (completed,) = run.step(NOW + 50)
    run.nats.answer(completed)
    run.publisher.step(NOW + 50)
    assert run.publisher.finished
    assert run.nats.requests._waiting == {}


def test_each_acknowledgement_starts_the_wait_again() -> None:
    run = Run(heartbeat=900.0)
    run.store()
    run.log(2)
    first, _ = run.step()
    run.nats.answer(first)
    assert run.step(NOW + 9.0) == []
    assert run.publisher.due == NOW + 9.0 + ACK_SECONDS


def test_what_nats_does_not_permit_is_reported_at_once_and_holds_up_nobody() -> None:
    run = Run()
    run.producer.end(None)
    run.step()
    assert not run.producer.settled.done()
    run.publisher.denied(Complaint(ComplaintKind.PUBLISH_DENIED, "another task's", "fanline.pub.task.other"))
    assert not run.producer.settled.done()
    run.publisher.denied(Complaint(ComplaintKind.PUBLISH_DENIED, "may not", PUB))
    assert run.warnings == ["NATS is not storing the events of task job: may not"]
    assert run.producer.settled.done()


def test_a_denied_inbox_or_question_concerns_the_task() -> None:
    for denied in (lambda run: run.nats.requests.inbox, lambda run: MESSAGE):
        run = Run(attempt=None)
        run.publisher.step(NOW)
        run.publisher.denied(Complaint(ComplaintKind.SUBSCRIBE_DENIED, "may not", denied(run)))
        assert run.publisher.troubled


def test_giving_up_says_how_much_may_be_lost_and_publishes_it_a_last_time() -> None:
    run = Run()
    run.producer.pause(None)
    (started,) = run.step()
    run.producer.resume()
    run.producer.log("a\nb", "stdout")
    run.producer.end(None)
    assert run.publisher.give_up() == (4, 2)
    assert run.publisher.finished
    said = run.nats.said(PUB)
    assert _events(said) == ["started", "paused", "resumed", "output", "completed"]
    assert _id(said[0]) == _id(started)
    assert run.step(subject=None) == []


def test_nothing_is_published_of_a_run_that_is_given_up_before_its_turn() -> None:
    first = Run()
    for run in (Run(attempt=None), Run(attempt=2, previous=first.publisher)):
        run.producer.end(None)
        run.publisher.step(NOW)
        assert run.publisher.give_up() == (2, 0)
        assert run.nats.said(PUB) == []


def test_what_comes_late_after_giving_up_does_no_harm() -> None:
    run = Run()
    (said,) = run.step()
    run.publisher.give_up()
    run.nats.answer(said, ACK)
    run.nats.answer(said, ACK)
    assert run.publisher.finished
