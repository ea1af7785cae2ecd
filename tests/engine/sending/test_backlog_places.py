"""The backlog's bookkeeping: which places it keeps, what is settled at a time, when drops are reported."""

from typing import Any

import msgspec

from fanline.engine.namespaces import Namespace, SlowPolicy
from fanline.engine.sending.backlog import _REPLACED_ALLOWED, _SETTLE_BYTES, Backlog
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import FrameReader, encode_frame

ENCODING = encoding_of(JSON, deflated=False)
NOW = 1_000_000
EVERYWHERE = Namespace(everywhere=True)


def message(number: int, **fields: Any) -> Envelope:
    return Envelope("pub", channel="task:1", data=number, **fields)


def batch_of(*envelopes: Envelope, namespace: Namespace | None = None) -> EncodedBatch:
    messages = [EncodedMessage(ENCODING.encode(envelope), envelope) for envelope in envelopes]
    return EncodedBatch(messages, ENCODING, namespace or Namespace())


def frame(number: int) -> bytes:
    """One that is no channel message, such as an answer."""
    return encode_frame(JSON.opcode, b'{"d":%d}' % number)


def backlog_of(*envelopes: Envelope, namespace: Namespace | None = None) -> Backlog:
    """A backlog behind one byte of a frame that has begun to leave."""
    backlog = Backlog(memoryview(b"~"))
    backlog.add_batch(batch_of(*envelopes, namespace=namespace))
    return backlog


def send(backlog: Backlog) -> list[dict[str, Any]]:
    """What a client reads of the next buffers."""
    data = b"".join(backlog.buffers(64, NOW))
    backlog.advance(len(data))
    reader = FrameReader(1 << 20, from_client=False)
    return [msgspec.json.decode(message.payload) for message in reader.feed(data.removeprefix(b"~"))]


def numbers(received: list[dict[str, Any]]) -> list[int]:
    return [envelope["d"] for envelope in received]


# --- places -------------------------------------------------------------------------------------------------------


def test_replaced_messages_keep_their_places_until_there_are_too_many_of_them() -> None:
    backlog, places = backlog_of(message(0, key="k")), []
    for number in range(1, 500):
        backlog.add_batch(batch_of(message(number, key="k")))
        places.append(len(backlog._queue))
    most = _REPLACED_ALLOWED + backlog.count  # the begun frame, and the newest message
    assert (max(places), min(places[most:])) == (most, 1)


def test_a_place_that_was_passed_over_is_no_longer_counted() -> None:
    backlog = backlog_of(*(message(number, key="k") for number in range(10)))
    assert backlog._replaced == 9
    assert numbers(send(backlog) + send(backlog)) == [9]
    assert backlog._replaced == 0


def test_tidying_takes_nothing_but_replaced_messages() -> None:
    backlog = backlog_of(message(1), message(2, priority=9), message(3, priority=9, key="u"), namespace=EVERYWHERE)
    backlog.add(frame(4))
    backlog.add_batch(batch_of(message(5, priority=9, key="u"), namespace=EVERYWHERE))
    for number in range(6, 200):
        backlog.add_batch(batch_of(message(number, key="k")))
    assert len(backlog._queue) < 100
    assert numbers(send(backlog) + send(backlog)) == [2, 5, 1, 4, 199]


def test_a_backlog_that_is_cut_short_between_two_frames_holds_the_goodbye_alone() -> None:
    backlog = backlog_of(message(1), message(2))
    backlog.advance(1)
    backlog.cut_short(b"bye")
    assert (backlog.buffers(64, NOW), backlog.size, backlog.count) == ([b"bye"], 3, 1)


# --- settling -----------------------------------------------------------------------------------------------------


def settled(*sizes: int) -> int:
    """Of frames of these sizes, how many leave the queue at a time."""
    backlog = Backlog(memoryview(b"~"))
    for size in sizes:
        backlog.add(bytes(size))
    backlog.advance(1)
    return len(backlog.buffers(64, NOW))


def test_the_queue_is_settled_up_to_the_first_frame_that_makes_it_enough() -> None:
    assert settled(_SETTLE_BYTES, 1) == 1
    assert settled(_SETTLE_BYTES - 1, 1, 1) == 2
    assert settled(*[_SETTLE_BYTES * 2 // 3] * 3) == 2


def test_what_is_not_settled_yet_can_still_be_replaced() -> None:
    backlog = backlog_of(message(1), message(2, key="k"))
    backlog._queue.appendleft(bytes(_SETTLE_BYTES))
    backlog.advance(1)
    backlog.buffers(64, NOW)
    backlog.add_batch(batch_of(message(3, key="k")))
    backlog.advance(_SETTLE_BYTES)
    assert numbers(send(backlog)) == [1, 3]


def test_an_urgent_message_is_out_of_turn_and_the_chain_goes_on_without_it() -> None:
    stored = [message(number, offset=number, previous=number - 1) for number in (1, 3)]
    urgent = message(2, offset=2, previous=1, priority=9)
    backlog = backlog_of(stored[0], urgent, stored[1], namespace=EVERYWHERE)
    received = send(backlog) + send(backlog)
    assert [(each["o"], each["p"]) for each in received] == [(2, 1), (1, 0), (3, 1)]


# --- drops and conflation -----------------------------------------------------------------------------------------


def test_drops_are_reported_only_when_nothing_else_waits() -> None:
    backlog = backlog_of(message(1))
    backlog.drop(batch_of(message(2), message(3)))
    assert (numbers(send(backlog)), numbers(send(backlog))) == ([], [1])
    assert [(gap["t"], gap["d"]["count"]) for gap in send(backlog)] == [("gap", 2)]
    assert send(backlog) == []


def test_where_nothing_waits_drops_are_reported_at_once() -> None:
    backlog = backlog_of()
    backlog.drop(batch_of(message(1)))
    backlog.advance(1)
    assert [gap["d"] for gap in send(backlog)] == [{"reason": "slow", "count": 1}]
    assert (backlog.size, backlog.count) == (0, 0)


def test_a_conflating_namespace_tells_events_senders_and_channels_apart() -> None:
    envelopes = [
        Envelope("pub", channel=channel, event=event, sender=sender, data=number)
        for number in range(2)
        for channel in ("cursor:1", "cursor:2")
        for event in ("move", "click")
        for sender in ("ann", "bob", None)
    ]
    backlog = backlog_of(*envelopes, namespace=Namespace(slow=SlowPolicy.CONFLATE))
    send(backlog)
    assert numbers(send(backlog)) == [1] * 12
