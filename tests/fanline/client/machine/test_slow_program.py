"""A program that is slow to take its messages: what is kept for it is bounded in messages and in bytes."""

import pytest

import fanline
from fanline.client.machine import unread
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.machine.unread import BUFFER_BYTES, OVERRUN
from fanline.protocol.envelope import Envelope, MessageType
from tests.fanline.client.machine.played import PlayedClient


def _entered(buffer: int) -> tuple[PlayedClient, LocalSubscription]:
    client = PlayedClient().ready()
    local = client.enter(buffer=buffer)
    client.accept()
    return client, local


def _publish(client: PlayedClient, size: int) -> None:
    client.hear(Envelope(MessageType.PUB, channel="news:a", data="x" * size))


def test_few_large_messages_fill_a_buffer_for_many_and_reading_goes_on_once_there_is_room() -> None:
    client, local = _entered(buffer=1000)
    for held_back in (False, False, True):
        _publish(client, BUFFER_BYTES // 3)
        assert client.machine.holds_back is held_back
    assert local.take() is not None
    assert not client.machine.holds_back


def test_one_message_that_is_larger_than_the_buffer_is_taken_like_any_other() -> None:
    client, local = _entered(buffer=1000)
    _publish(client, BUFFER_BYTES + 1)
    assert client.machine.holds_back
    message = local.take()
    assert isinstance(message, fanline.Message)
    assert len(message.data) == BUFFER_BYTES + 1
    assert not client.machine.holds_back


def test_small_messages_after_large_ones_that_were_taken_do_not_fill_the_buffer() -> None:
    client, local = _entered(buffer=1000)
    for _ in range(4):
        _publish(client, BUFFER_BYTES // 2)
        _publish(client, 1)
        assert [local.take() is not None for _ in range(3)] == [True, True, False]
    _publish(client, 1)
    assert not client.machine.holds_back


def test_while_an_answer_is_waited_for_16_times_the_bytes_end_the_subscription_after_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unread, "BUFFER_BYTES", 1000)
    client, local = _entered(buffer=1000)
    client.ask(MessageType.PING)
    for _ in range(OVERRUN + 1):
        assert not client.machine.holds_back, "the answer comes after what is not read yet"
        _publish(client, 1000)
    taken = 0
    with pytest.raises(fanline.SlowConsumer, match="messages of news:a were waiting"):
        while local.take() is not None:
            taken += 1
    assert taken == OVERRUN
