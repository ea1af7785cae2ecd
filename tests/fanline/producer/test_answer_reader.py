"""After a reconnect the answer to a task's question is read from the stream, without a server that could deliver it."""

from typing import Any

import msgspec
import pytest

from tests.fanline.nats.played import Said
from tests.fanline.producer.test_task_publisher import MESSAGE, NOW, PUB, Run

INPUT = {"by": "ann", "verb": "approve", "value": "blue"}


class Asking:
    """A run whose job asks a question, which is stored at the offset 100."""

    def __init__(self) -> None:
        self.run = Run()
        self.answer = self.run.producer.ask("which?", "approve", None, None)
        (started,) = self.run.step()
        self.run.nats.answer(started)
        (self.asked,) = self.run.step()
        self.ask: str = msgspec.json.decode(self.asked.payload)["d"]["ask"]

    def stored(self, *, duplicate: bool = False) -> list[Said]:
        """The question is acknowledged; what is read because of that."""
        ack = {"stream": "FANLINE_task", "seq": 100, "duplicate": duplicate}
        self.run.nats.answer(self.asked, msgspec.json.encode(ack))
        return self.run.nats.said(MESSAGE)

    def reconnect(self) -> list[Said]:
        """What is read on the next connection."""
        self.run.nats.disconnect()
        self.run.connect()
        return self.run.nats.said(MESSAGE)

    def event(self, name: str, **data: Any) -> bytes:
        return msgspec.json.encode({"v": 1, "e": f"task_{name}", "d": {"ask": self.ask} | data})


def test_the_first_answer_in_the_stream_after_the_question_is_the_answer() -> None:
    at = Asking()
    assert at.stored() == []
    (read,) = at.reconnect()
    request = msgspec.json.decode(read.payload)
    assert (request["seq"], request["next_by_subj"]) == (101, PUB)
    others = [b"garbage", at.event("output", lines=["x"]), at.event("input", ask="other", by="eve")]
    second = at.event("input", by="bob", verb="reject", value=False)
    at.run.nats.answer_page(read, [*others, at.event("input", **INPUT), second])
    assert at.answer.result(0) == (True, "blue", "ann")
    assert at.reconnect() == []
    assert at.run.replies == []


def test_an_answer_on_a_later_page_is_found() -> None:
    at = Asking()
    at.stored()
    (read,) = at.reconnect()
    at.run.nats.answer_page(read, [at.event("progress", percent=1)] * 3, more=2)
    (further,) = at.run.nats.said(MESSAGE)
    assert msgspec.json.decode(further.payload)["seq"] == 104
    at.run.nats.answer_page(further, [at.event("input", by="ann", verb="reject", value=False)])
    assert at.answer.result(0).approved is False


def test_an_answer_after_the_question_has_expired_does_not_count() -> None:
    at = Asking()
    at.stored()
    (read,) = at.reconnect()
    at.run.nats.answer_page(read, [at.event("confirmation_expired"), at.event("input", **INPUT)])
    assert not at.answer.done()


def test_a_question_whose_acknowledgement_was_lost_may_have_been_answered() -> None:
    at = Asking()
    assert at.reconnect() == []
    assert at.stored(duplicate=False) == []
    at = Asking()
    (read,) = at.stored(duplicate=True)
    at.run.nats.answer_page(read, [at.event("input", **INPUT)])
    assert at.answer.result(0).by == "ann"


@pytest.mark.parametrize("status", [404, 503])
def test_without_an_answer_in_the_stream_the_job_waits_on(status: int) -> None:
    at = Asking()
    at.stored()
    (read,) = at.reconnect()
    at.run.nats.answer_status(read, status)
    assert not at.answer.done()
    assert len(at.reconnect()) == 1


def test_a_job_that_no_longer_waits_reads_nothing() -> None:
    at = Asking()
    at.stored()
    at.run.producer.end_ask(at.answer)
    at.run.publisher.step(NOW)
    assert at.reconnect() == []
