"""What a publisher's users wait for, without a connection: the server's side is played by hand."""

from concurrent.futures import Future

import pytest

from fanline.nats.dial import ANSWER_SECONDS
from fanline.nats.pending import PendingAnswers
from fanline.nats.requests import NatsRequests
from fanline.protocol.nats.connection import NatsConnection
from fanline.protocol.nats.parser import NatsError, Parser
from fanline.protocol.nats.replies import Complaint, ComplaintKind, ServerInfo


class Played:
    """Pending answers over a connection whose bytes the test reads and writes."""

    def __init__(self, *, tries: int = 1) -> None:
        self.requests = NatsRequests()
        self.stops = 0
        self.pending = PendingAnswers(self.requests, self._stop, tries)
        self.connection = NatsConnection(
            ServerInfo(headers=True),
            Parser(),
            self.requests.subscriptions,
            on_work=lambda: None,
            on_complaint=self.pending.denied,
        )
        self.requests.attach(self.connection)
        self.pending.connected(0.0)
        self.connection.take_output()

    def _stop(self) -> None:
        self.stops += 1

    def flush(self) -> Future[None]:
        future: Future[None] = Future()
        self.pending.flush(future)
        return future

    def store(self) -> str:
        """Publish a message that is to be stored; returns the subject for its acknowledgement."""
        self.pending.publish("fanline.pub.task.42", b"x", None, stored=True)
        return self.connection.take_output().split()[2].decode()

    def answer(self, subject: str, payload: bytes) -> None:
        self.connection.receive(b"MSG %s 1 %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))

    def hears(self, data: bytes) -> None:
        self.connection.receive(data)


ACK = b'{"stream":"s","seq":1}'


def test_what_the_server_says_of_itself_is_known_once_it_is_open() -> None:
    assert Played().pending.opened.result(0).headers


def test_flush_waits_for_the_pong_and_for_every_acknowledgement_whatever_comes_first() -> None:
    played = Played()
    first, second = played.store(), played.store()
    flushed = played.flush()
    assert played.connection.take_output() == b"PING\r\n"
    played.answer(second, ACK)
    assert not flushed.done()
    played.hears(b"PONG\r\n")
    assert not flushed.done()
    played.answer(first, b'{"stream":"s","seq":2,"duplicate":true}')
    assert flushed.result(0) is None


def test_flush_does_not_wait_for_what_is_published_later() -> None:
    played = Played()
    first = played.store()
    flushed = played.flush()
    played.store()
    played.hears(b"PONG\r\n")
    played.answer(first, ACK)
    assert flushed.done()


def test_a_message_that_cannot_be_stored_is_an_error_in_jetstreams_words() -> None:
    played = Played()
    stored = played.store()
    flushed = played.flush()
    played.hears(b"PONG\r\n")
    played.answer(stored, b'{"error":{"code":503,"description":"no space left"}}')
    with pytest.raises(NatsError, match="no space left"):
        flushed.result(0)
    again = played.flush()
    played.hears(b"PONG\r\n")
    assert again.result(0) is None  # told once


@pytest.mark.parametrize(("streams", "stored"), [(b'["FANLINE_task"]', True), (b"null", False), (b"[]", False)])
def test_jetstream_says_whether_a_channel_is_stored(streams: bytes, stored: bool) -> None:  # a table's column
    played, found = Played(), Future[bool]()
    played.pending.find_stream("fanline.pub.task.42", found)
    asked, body, _ = played.connection.take_output().split(b"\r\n")
    assert asked.split()[:2] == [b"PUB", b"$JS.API.STREAM.NAMES"]
    assert body == b'{"subject":"fanline.pub.task.42"}'
    played.answer(asked.split()[2].decode(), b'{"total":1,"streams":%s}' % streams)
    assert found.result(0) is stored


def test_silence_is_an_error_after_a_while_that_begins_with_the_question() -> None:
    played = Played()
    assert played.pending.step(100.0) == float("inf")
    played.store()
    flushed = played.flush()
    assert played.pending.step(100.0) == 100.0 + ANSWER_SECONDS
    played.hears(b"PONG\r\n")
    assert played.pending.step(105.0) == 105.0 + ANSWER_SECONDS
    assert not flushed.done()
    played.pending.step(105.0 + ANSWER_SECONDS)
    with pytest.raises(NatsError, match="JetStream did not answer"):
        flushed.result(0)


DENIED = Complaint(ComplaintKind.PUBLISH_DENIED, "NATS does not permit this user to publish to x", "x")


def test_what_is_denied_is_an_error_for_whoever_waits() -> None:
    played = Played()
    flushed = played.flush()
    played.hears(b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n")
    with pytest.raises(NatsError, match="does not permit this user to publish to x"):
        flushed.result(0)
    played.hears(b"PONG\r\n")  # of the flush that has failed


def test_what_is_denied_before_anyone_waits_is_an_error_of_the_next_flush() -> None:
    played = Played()
    played.store()
    played.pending.denied(DENIED)
    flushed = played.flush()
    played.hears(b"PONG\r\n")
    with pytest.raises(NatsError, match="does not permit"):
        flushed.result(0)


def test_a_lost_connection_ends_it_but_each_server_is_tried_once() -> None:
    played = Played(tries=2)
    unconnected = PendingAnswers(NatsRequests(), played._stop, 2)
    unconnected.lost("cannot connect to a", 0.0)
    assert played.stops == 0
    unconnected.lost("cannot connect to b", 0.0)
    assert played.stops == 1
    assert str(unconnected.failure) == "cannot connect to b"
    played.pending.lost("the NATS server closed the connection", 1.0)
    assert played.stops == 2
