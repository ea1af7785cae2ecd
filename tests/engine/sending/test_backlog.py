"""What a slow connection gets: the newest of each key, urgent messages first, nothing expired, an unbroken chain."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.engine.namespaces import Namespace, SlowPolicy
from fanline.engine.sending.backlog import Backlog
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import FrameReader, encode_frame

ENCODING = encoding_of(JSON, deflated=False)
NOW = 1_000_000


def batch_of(*envelopes: Envelope, **namespace: Any) -> EncodedBatch:
    messages = [EncodedMessage(ENCODING.encode(envelope), envelope) for envelope in envelopes]
    return EncodedBatch(messages, ENCODING, Namespace(**namespace))


def message(number: int, channel: str = "task:1", **fields: Any) -> Envelope:
    return Envelope("pub", channel=channel, data=number, **fields)


def stored(number: int, **fields: Any) -> Envelope:
    return message(number, offset=number, previous=number - 1, **fields)


def drain(backlog: Backlog, rng: random.Random | None = None) -> list[dict[str, Any]]:
    """Everything a client would read, the socket taking a random number of bytes at a time."""
    reader, received = FrameReader(1 << 20, from_client=False), list[dict[str, Any]]()
    begun = True
    while buffers := backlog.buffers(64, NOW):
        data = b"".join(buffers)
        taken = data if rng is None else data[: rng.randrange(1, len(data) + 1)]
        backlog.advance(len(taken))
        taken, begun = (taken.removeprefix(b"~"), False) if begun else (taken, False)
        received += [msgspec.json.decode(m.payload) for m in reader.feed(taken)]
    assert (backlog.size, backlog.count) == (0, 0)
    return received


def begun_backlog() -> Backlog:
    return Backlog(memoryview(b"~"))  # one byte stands for the rest of a frame that has begun to leave


def numbers(received: list[dict[str, Any]]) -> list[int]:
    return [envelope["d"] for envelope in received]


def test_a_newer_message_of_a_key_takes_the_place_of_an_older_one_and_others_stay() -> None:  # S3-49
    backlog = begun_backlog()
    backlog.add_batch(batch_of(message(1, key="a"), message(2), message(3, key="b"), message(4, key="a"), message(5)))
    backlog.add_batch(batch_of(message(6, key="a", channel="task:2"), message(7, key="b")))
    assert numbers(drain(backlog)) == [2, 4, 5, 6, 7]


def test_a_conflating_namespace_keeps_the_newest_of_each_sender_and_event() -> None:
    backlog = begun_backlog()
    moves = [message(n, channel="cursor:1", sender="ab"[n % 2], event="move") for n in range(6)]
    backlog.add_batch(batch_of(*moves, slow=SlowPolicy.CONFLATE))
    assert numbers(drain(backlog)) == [4, 5]


def test_after_a_conflation_each_durable_message_follows_on_the_one_that_was_sent() -> None:
    backlog = begun_backlog()
    backlog.add_batch(batch_of(stored(5, key="p"), stored(6), stored(7, key="p"), stored(8), stored(9, key="p")))
    received = drain(backlog)
    assert [(m["o"], m["p"]) for m in received] == [(6, 4), (8, 6), (9, 8)]


def test_what_is_dropped_is_told_with_its_count_once_there_is_room() -> None:
    backlog = begun_backlog()
    backlog.add_batch(batch_of(message(1, channel="typing:1")))
    backlog.drop(batch_of(message(2, channel="typing:1"), message(3, channel="typing:1")))
    backlog.drop(batch_of(message(4, channel="typing:2")))
    first, *gaps = drain(backlog)
    assert first["d"] == 1
    assert [(gap["t"], gap["c"], gap["d"]) for gap in gaps] == [
        ("gap", "typing:1", {"reason": "slow", "count": 2}),
        ("gap", "typing:2", {"reason": "slow", "count": 1}),
    ]


def test_an_urgent_message_of_an_everywhere_namespace_passes_all_others_and_no_other_does() -> None:
    backlog = begun_backlog()
    backlog.add(encode_frame(JSON.opcode, b'{"d":0}'))
    backlog.add_batch(batch_of(message(1), message(2, priority=9)))
    backlog.add_batch(batch_of(message(3, channel="alarm:all", priority=7), everywhere=True))
    urgent = [message(4, channel="alarm:all", priority=8), message(5, channel="alarm:all", priority=9)]
    backlog.add_batch(batch_of(*urgent, everywhere=True))
    assert numbers(drain(backlog)) == [4, 5, 0, 1, 2, 3]


def test_an_expired_message_is_left_out_and_the_chain_holds() -> None:
    backlog = begun_backlog()
    old = NOW - 10_000
    backlog.add_batch(batch_of(stored(1), stored(2, time=old, ttl=5), stored(3, time=old, ttl=60)))
    assert [(m["o"], m["p"]) for m in drain(backlog)] == [(1, 0), (3, 1)]


def test_cut_short_keeps_the_begun_frame_and_the_goodbye_only() -> None:
    backlog = begun_backlog()
    backlog.add_batch(batch_of(*(message(number) for number in range(100))))
    backlog.cut_short(encode_frame(JSON.opcode, b'{"d":"bye"}'))
    assert (backlog.count, backlog.size) == (2, 1 + len(b'{"d":"bye"}') + 2)
    assert [m["d"] for m in drain(backlog)] == ["bye"]


@given(
    keys=st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=60),
    pauses=st.lists(st.booleans(), min_size=60, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_keep_messages_come_all_and_in_order_and_the_last_of_each_key_comes(
    keys: list[str | None], pauses: list[bool], seed: int
) -> None:
    backlog, rng = begun_backlog(), random.Random(seed)
    received: list[dict[str, Any]] = []
    for number, key in enumerate(keys, 1):
        backlog.add_batch(batch_of(stored(number, key=key)))
        if pauses[number - 1] and backlog.count > 1:
            backlog.buffers(1, NOW)  # a drain task that looks, and takes nothing yet
    received += drain(backlog, rng)
    got = numbers(received)
    assert got == sorted(got)
    assert [n for n in got if keys[n - 1] is None] == [n for n, key in enumerate(keys, 1) if key is None]
    for key in {key for key in keys if key}:
        assert max(n for n, k in enumerate(keys, 1) if k == key) in got
    previous = 0
    for envelope in received:
        assert envelope["p"] == previous
        previous = envelope["o"]


@pytest.mark.parametrize("policy", list(SlowPolicy))
def test_sizes_are_what_is_really_queued(policy: SlowPolicy) -> None:
    backlog = begun_backlog()
    batch = batch_of(*(stored(number, key="k" if number % 3 else None) for number in range(1, 30)), slow=policy)
    backlog.add_batch(batch)
    left = [1, *(len(i.frame) for n, i in enumerate(batch.messages, 1) if n % 3 == 0), len(batch.messages[-1].frame)]
    if policy is not SlowPolicy.CONFLATE:
        assert backlog.count == len(left)
        assert backlog.size == sum(left)
    drain(backlog)


def test_a_key_that_is_replaced_for_ever_takes_no_more_room() -> None:
    backlog = begun_backlog()
    for number in range(10_000):
        backlog.add_batch(batch_of(message(number, key="progress")))
    assert backlog.count == 2
    assert len(backlog._queue) < 200


def test_keys_of_what_was_sent_are_forgotten() -> None:
    backlog = begun_backlog()
    for number in range(10_000):
        backlog.add_batch(batch_of(message(number, key=f"key{number}")))
        backlog.advance(sum(map(len, backlog.buffers(64, NOW))))
        backlog.add_batch(batch_of(message(number, key=f"other{number}")))  # never quite empty
    assert len(backlog._newest) < 200


def test_the_piece_that_did_not_fit_counts_for_no_bound() -> None:
    backlog = Backlog(memoryview(bytes(5_000_000)))
    backlog.add(b"x" * 100)
    assert backlog.waiting == 100
    backlog.advance(4_999_950)
    assert backlog.waiting == 100
    backlog.advance(50)
    assert backlog.buffers(64, NOW) == [b"x" * 100]
    backlog.advance(40)
    assert backlog.waiting == 60


@pytest.mark.parametrize("left_out", [{"ttl": 1, "time": 0}, {"key": "k"}])
def test_a_client_is_told_of_an_epoch_although_the_message_that_tells_of_it_may_be_left_out(
    left_out: dict[str, Any],
) -> None:
    backlog = begun_backlog()
    first, last = stored(6, epoch="f", **left_out), stored(8, key="k")
    backlog.add_batch(batch_of(stored(5), first, stored(7), last))
    told = [each.get("ep") for each in drain(backlog) if each["o"] > 5]
    assert told[0] == "f"
    assert told[1:] == [None] * len(told[1:])


def test_an_epoch_that_has_ended_before_a_client_was_told_of_it_is_not_told() -> None:
    backlog = begun_backlog()
    gap = Envelope("gap", channel="task:1", epoch="g", data={"from": 0, "to": 0, "reason": "epoch"})
    backlog.add_batch(batch_of(stored(6, epoch="f", ttl=1, time=0), gap, stored(1)))
    assert [each.get("ep") for each in drain(backlog)] == ["g", None]
