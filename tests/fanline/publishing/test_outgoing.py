"""The messages of a publishing thread, without I/O: NATS is played by the test."""

import logging

import pytest

from fanline.errors import NotPublished
from fanline.protocol.nats.names import BOARD_SUBJECT
from fanline.protocol.nats.replies import Complaint, ComplaintKind
from fanline.protocol.nats.subjects import to_subject
from fanline.publishing.lane import (
    DURABLE_SECONDS,
    EPHEMERAL_FOR_SECONDS,
    EPHEMERAL_SECONDS,
    NEVER_REACHED_SECONDS,
    RESEND_SECONDS,
    RETRY_SECONDS,
    OutgoingMessage,
)
from fanline.publishing.outgoing import Outgoing
from tests.fanline.nats.played import PlayedNats, Said

NAMES = "$JS.API.STREAM.NAMES"
STORES, STORES_NOT = b'{"streams":["FANLINE_task"]}', b'{"streams":null}'
AWAY = b'{"error":{"code":503,"err_code":10008,"description":"temporarily unavailable"}}'
FULL = b'{"error":{"code":503,"err_code":10023,"description":"insufficient resources"}}'
CHANNEL, SUBJECT = "task:1", "fanline.pub.task.1"


class Played:
    """What a thread publishes, and the server's side of it."""

    def __init__(self, *, connected: bool = True) -> None:
        self.nats = PlayedNats(max_payload=1000)
        self.stops = 0
        self.outgoing = Outgoing(self.nats.requests, self._stop)
        self.now = 0.0
        if connected:
            self.connect()

    def _stop(self) -> None:
        self.stops += 1

    def connect(self) -> None:
        self.nats.connect()
        self.outgoing.connected(self.now)
        self.step()

    def lose(self, why: str = "it broke") -> None:
        self.nats.disconnect()
        self.outgoing.lost(why, self.now)
        self.step()

    def publish(
        self, payload: bytes = b"1", channel: str = CHANNEL, *, keep: float = DURABLE_SECONDS
    ) -> OutgoingMessage:
        store_id = f"/{channel}/{payload!r}"
        message = OutgoingMessage(channel, to_subject(channel), payload, store_id, self.now, keep=keep)
        self.outgoing.add(message)
        self.step()
        return message

    def step(self, seconds: float = 0.0) -> float:
        """Time passes. Returns when the next step is due."""
        self.now += seconds
        return self.outgoing.step(self.now)

    def say(self, stores: bytes = STORES) -> None:
        """What the namespace is."""
        (asked,) = self.nats.said(NAMES)
        self.nats.answer(asked, stores)
        self.step()

    def sent(self) -> list[Said]:
        return self.nats.said(SUBJECT)

    def acknowledge(self, said: Said, payload: bytes = b'{"stream":"s","seq":1}') -> None:
        self.nats.answer(said, payload)
        self.step()


def error_of(message: OutgoingMessage) -> str:
    assert message.done.done()
    with pytest.raises(NotPublished) as caught:
        message.done.result()
    return str(caught.value)


def test_nothing_is_sent_before_it_is_known_whether_the_channel_is_durable_which_is_asked_once() -> None:
    played = Played()
    first, second = played.publish(b"1"), played.publish(b"2")
    (asked,) = played.nats.said()
    assert (asked.subject, asked.payload) == (NAMES, b'{"subject":"fanline.pub.task.1"}')
    played.nats.answer(asked, STORES)
    played.step()
    said = played.sent()
    assert [each.payload for each in said] == [b"1", b"2"]
    assert not first.done.done()
    for each in said:
        played.acknowledge(each)
    assert first.done.result(0) is None
    assert second.done.result(0) is None
    assert not played.outgoing._lanes["task", DURABLE_SECONDS]  # and nothing is kept


def test_what_is_durable_is_sent_again_on_the_next_connection_under_its_id_before_what_came_later() -> None:
    played = Played()
    message = played.publish(b"1")
    played.say()
    (before,) = played.sent()
    played.lose()
    later = played.publish(b"2")
    played.step(DURABLE_SECONDS - 1)
    played.connect()
    played.say()
    again, next_one = played.sent()
    assert (again.payload, again.headers, next_one.payload) == (b"1", before.headers, b"2")
    assert b"Nats-Msg-Id: /task:1/" in again.headers
    played.acknowledge(again)
    assert message.done.done()
    assert not later.done.done()


def test_what_is_ephemeral_is_done_when_the_server_has_confirmed_it() -> None:
    played = Played()
    message = played.publish()
    played.say(STORES_NOT)
    (said,) = played.sent()
    assert said.reply == ""
    assert not message.done.done()
    played.nats.hears(b"PONG\r\n")
    assert message.done.result(0) is None


def test_what_is_ephemeral_is_sent_once_at_most() -> None:
    played = Played()
    message = played.publish()
    played.say(STORES_NOT)
    assert len(played.sent()) == 1
    played.lose("the cable")
    assert error_of(message) == "it is not known whether the message on task:1 was published: the cable"
    played.connect()
    assert played.nats.said() == []


def test_what_is_ephemeral_waits_for_the_next_connection_if_it_was_not_sent() -> None:
    played = Played()
    played.publish()
    played.say(STORES_NOT)
    played.nats.hears(b"PONG\r\n")
    played.lose()
    message, late = played.publish(b"2"), played.publish(b"3")
    played.step(EPHEMERAL_SECONDS - 0.1)
    assert not message.done.done()
    played.step(0.2)
    assert "not published: it broke (after 5 seconds)" in error_of(message)
    assert "not published" in error_of(late)


def test_a_stream_that_is_made_later_is_found() -> None:
    played = Played()
    played.publish()
    played.say(STORES_NOT)
    played.sent()
    played.nats.hears(b"PONG\r\n")
    played.step(EPHEMERAL_FOR_SECONDS - 0.1)
    soon = played.publish(b"2")
    assert len(played.sent()) == 1
    played.nats.hears(b"PONG\r\n")
    assert soon.done.done()
    played.step(0.2)
    played.publish(b"3")
    played.say(STORES)
    (said,) = played.sent()
    assert said.reply


def test_what_jetstream_does_not_answer_is_sent_again_once_it_is_known_that_it_still_stores_it() -> None:
    played = Played()
    message = played.publish()
    played.say()
    assert len(played.sent()) == 1
    assert played.step() == RESEND_SECONDS
    played.step(RESEND_SECONDS)
    played.say()
    (again,) = played.sent()
    played.acknowledge(again)
    assert message.done.result(0) is None


def test_jetstream_that_is_away_is_asked_again_a_little_later() -> None:
    played = Played()
    message = played.publish()
    played.say()
    played.acknowledge(played.sent()[0], AWAY)
    assert played.nats.said() == []
    played.step(RETRY_SECONDS)
    (again,) = played.sent()
    played.acknowledge(again)
    assert message.done.result(0) is None


def test_a_refusal_of_jetstream_is_the_messages_own() -> None:
    played = Played()
    message, other = played.publish(b"1"), played.publish(b"2")
    played.say()
    refused, taken = played.sent()
    played.acknowledge(refused, FULL)
    played.acknowledge(taken)
    assert error_of(message) == ("the message on task:1 was not published: its store is full (insufficient resources)")
    assert other.done.result(0) is None


def test_a_message_that_is_too_large_is_refused_and_the_others_are_sent() -> None:
    played = Played()
    large, small = played.publish(b"x" * 1000), played.publish(b"1")
    played.say()
    assert [said.payload for said in played.sent()] == [b"1"]
    assert "bytes, and the NATS server accepts at most 1000" in error_of(large)
    assert not small.done.done()


def test_what_the_server_does_not_permit_fails_at_once_and_only_that() -> None:
    played = Played()
    message, other = played.publish(), played.publish(channel="task:2")
    played.say()
    played.outgoing.denied(Complaint(ComplaintKind.PUBLISH_DENIED, "NATS does not permit it", SUBJECT))
    assert error_of(message) == "the message on task:1 was not published: NATS does not permit it"
    assert not other.done.done()


def test_a_login_that_may_not_ask_jetstream_may_not_publish() -> None:
    played = Played()
    message = played.publish()
    played.outgoing.denied(Complaint(ComplaintKind.PUBLISH_DENIED, "NATS does not permit to ask", NAMES))
    assert "NATS does not permit to ask" in error_of(message)


def test_where_nats_was_never_reached_nothing_waits_for_long(caplog: pytest.LogCaptureFixture) -> None:
    played = Played(connected=False)
    message = played.publish()
    played.step(NEVER_REACHED_SECONDS * 2)
    assert not message.done.done()  # the first attempt is under way
    with caplog.at_level(logging.WARNING, "fanline"):
        played.lose("nobody listens")
        played.lose("nobody listens")
    assert "not published: nobody listens (after 2 seconds)" in error_of(message)
    assert [record.message for record in caplog.records] == ["messages are waiting for NATS: nobody listens"]


def test_what_is_durable_fails_after_its_time_and_the_error_tells_whether_it_was_sent() -> None:
    played = Played()
    sent = played.publish()
    played.say()
    played.sent()
    played.lose()
    unsent = played.publish(b"2")
    assert played.step(DURABLE_SECONDS - 0.1) == pytest.approx(DURABLE_SECONDS)
    played.step(0.2)
    why = "it broke (after 30 seconds)"
    assert error_of(sent) == f"it is not known whether the message on task:1 was published: {why}"
    assert error_of(unsent) == f"the message on task:1 was not published: {why}"


def test_what_is_to_be_kept_for_longer_outlives_the_others_even_if_nats_was_never_reached() -> None:
    played = Played(connected=False)
    played.lose()
    short, long = played.publish(b"1"), played.publish(b"2", keep=2 * DURABLE_SECONDS)
    played.step(2 * DURABLE_SECONDS - 1)
    assert short.done.done()
    played.connect()
    played.say()
    (sent,) = played.sent()
    played.acknowledge(sent)
    assert long.done.result(0) is None
    late = played.publish(b"3", keep=2 * DURABLE_SECONDS)
    played.lose()
    played.step(2 * DURABLE_SECONDS)
    assert "(after 60 seconds)" in error_of(late)


def test_the_end_of_the_program_waits_until_all_is_published_and_no_longer() -> None:
    played = Played()
    message = played.publish()
    played.outgoing.finish(5.0)
    played.step()
    assert played.stops == 0
    played.say()
    played.acknowledge(played.sent()[0])
    assert (played.stops, message.done.result(0)) == (1, None)


def test_what_is_not_published_when_the_program_has_to_end_fails() -> None:
    played = Played()
    message = played.publish()
    played.outgoing.finish(5.0)
    assert played.step() == 5.0
    played.step(5.0)
    assert "not published" in error_of(message)
    assert played.stops == 1


# --- updates of items of task boards -------------------------------------------------------------------------------


def updated(played: Played, item: str) -> OutgoingMessage:
    message = OutgoingMessage(f"item {item}", BOARD_SUBJECT, item.encode(), item, played.now)
    played.outgoing.add(message)
    played.step()
    return message


def test_updates_of_items_are_sent_one_after_the_other_without_a_question() -> None:
    played = Played()
    first, second = updated(played, "a"), updated(played, "b")
    (said,) = played.nats.said()
    assert (said.subject, said.payload) == (BOARD_SUBJECT, b"a")
    played.acknowledge(said, b"{}")
    assert first.done.result() is None
    (said,) = played.nats.said(BOARD_SUBJECT)
    played.lose()
    played.connect()
    (again,) = played.nats.said(BOARD_SUBJECT)
    assert again.payload == said.payload == b"b"
    played.acknowledge(again, b"{}")
    assert second.done.result() is None


def test_an_update_is_sent_again_while_no_worker_takes_it() -> None:
    played = Played()
    message = updated(played, "a")
    (said,) = played.nats.said()
    played.nats.answer_status(said, 503)  # there is no worker
    played.step()
    for answer in (b'{"error":"too many","retry":true}', b""):
        assert not played.nats.said(BOARD_SUBJECT)
        played.step(RETRY_SECONDS)
        (said,) = played.nats.said(BOARD_SUBJECT)
        played.acknowledge(said, answer)
    played.step(RETRY_SECONDS)
    assert not message.done.done()
    played.step(DURABLE_SECONDS)
    assert error_of(message).endswith("no worker has answered (after 30 seconds)")


def test_an_update_that_the_engine_refuses_has_failed() -> None:
    played = Played()
    message = updated(played, "a")
    (said,) = played.nats.said()
    played.acknowledge(said, b'{"error":"it concerns nobody"}')
    assert error_of(message) == "the message on item a was not published: it concerns nobody"
    message = updated(played, "b")
    played.outgoing.denied(Complaint(ComplaintKind.PUBLISH_DENIED, "you may not", BOARD_SUBJECT))
    assert error_of(message).endswith(": you may not")
