"""What the hub keeps of its channels and groups, who is sent an urgent message, and when it calls its owner."""

import pytest

from fanline.engine.bus.stored import Epoch, StreamPosition
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.channels.group import FlushBatch
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.dialects.encoding import Encoding, encoding_of
from fanline.protocol.envelope import Envelope
from tests.engine.parts import idle_outbox, make_hub

IN_JSON, IN_CBOR = encoding_of(JSON, False), encoding_of(CBOR, False)
ALARM = Namespaces({"alarm": Namespace(everywhere=True), "log": Namespace(durable=True, everywhere=True)})
URGENT = b'{"v":1,"pr":9,"d":"out!"}'


def position(offset: int, previous: int = 0) -> StreamPosition:
    return StreamPosition(offset, previous, "2026-01-01T00:00:00Z")


def data_of(batch: FlushBatch) -> list[object]:
    return [message.envelope.value for message in batch.messages.messages]


# --- groups -------------------------------------------------------------------------------------------------------


def test_subscribers_with_one_encoding_are_one_group_and_its_last_one_takes_it_away() -> None:
    channel = make_hub()[0].open("c:a")
    first, second, other = idle_outbox(), idle_outbox(), idle_outbox()
    channel.add(IN_JSON, first)
    channel.add(IN_CBOR, other)
    channel.add(IN_JSON, second)
    assert [(group.encoding, list(group)) for group in channel.groups] == [
        (IN_JSON, [first, second]),
        (IN_CBOR, [other]),
    ]
    channel.discard(IN_JSON, first)
    assert [group.encoding for group in channel.groups] == [IN_JSON, IN_CBOR]
    channel.discard(IN_JSON, second)
    assert [(group.encoding, list(group)) for group in channel.groups] == [(IN_CBOR, [other])]
    channel.discard(IN_CBOR, other)
    assert channel.groups == ()


def test_a_message_is_not_encoded_for_a_group_that_has_emptied() -> None:
    hub, _ = make_hub()
    channel = hub.open("c:a")
    channel.add(IN_JSON, gone := idle_outbox())
    channel.add(IN_CBOR, idle_outbox())
    channel.discard(IN_JSON, gone)
    hub.receive("c:a", b"1", None)
    assert [batch.messages.encoding for batch in hub.take_dirty()] == [IN_CBOR]


def test_a_group_has_the_namespace_of_its_channel() -> None:
    channel = make_hub(ALARM)[0].open("alarm:fire")
    channel.add(IN_JSON, idle_outbox())
    assert channel.groups[0].namespace is channel.namespace
    assert channel.namespace.everywhere


# --- channels -----------------------------------------------------------------------------------------------------


def test_a_channel_is_open_until_the_last_interest_in_it_has_gone() -> None:
    hub, counters = make_hub()
    channel = hub.open("c:a")
    other = hub.open("c:b")
    assert (hub.open("c:a"), channel.interest, other.interest, counters.channels) == (channel, 2, 1, 2)
    assert not hub.close(channel)
    assert counters.channels == 2
    assert hub.close(channel)
    assert counters.channels == 1
    assert hub.open("c:a") is not channel


def test_a_durable_channel_is_open_only_as_the_one_that_was_opened() -> None:
    hub, _ = make_hub()
    before, plain = hub.open("task:1"), hub.open("c:a")
    assert (before.durable is None, plain.durable) == (False, None)
    assert before.durable is not None
    assert [durable.name for durable in hub.durable_channels()] == ["task:1"]
    hub.close(before)
    assert not hub.is_open(before.durable)
    after = hub.open("task:1")
    assert after.durable is not None
    assert (hub.is_open(before.durable), hub.is_open(after.durable)) == (False, True)


def test_what_a_closed_channel_hands_out_goes_to_nobody() -> None:
    hub, _ = make_hub()
    before = hub.open("task:1")
    assert before.durable is not None
    hub.close(before)
    after = hub.open("task:1")
    after.add(IN_JSON, idle_outbox())
    hub.deliver(before.durable, [Envelope("pub", channel="task:1", data=1)])
    assert hub.take_dirty() == []
    assert after.durable is not None
    hub.deliver(after.durable, [Envelope("pub", channel="task:1", data=2)])
    assert [data_of(batch) for batch in hub.take_dirty()] == [[2]]


@pytest.mark.parametrize(("name", "folded"), [("task:1", True), ("user:ann", False)])
def test_only_channels_of_tasks_are_folded(name: str, folded: bool) -> None:
    durable = make_hub()[0].open(name).durable
    assert durable is not None
    assert (durable.name, durable.fold is not None) == (name, folded)


def test_a_log_has_the_limit_it_was_given() -> None:
    hub, _ = make_hub(log_limit=2)
    durable = hub.open("user:ann").durable
    assert durable is not None
    durable.open(Epoch("e"), 0)
    for offset in (1, 2, 3):
        hub.receive("user:ann", b"1", position(offset, offset - 1))
    assert [envelope.offset for envelope in durable.log.all()] == [2, 3]


# --- messages -----------------------------------------------------------------------------------------------------


def test_every_message_of_the_bus_is_counted_wanted_or_not() -> None:
    hub, counters = make_hub()
    hub.open("c:a")
    for name in ("c:a", "c:nobody", "c:a"):
        hub.receive(name, b"1", None)
    assert counters.messages_in == 3


def test_a_message_that_cannot_be_read_is_counted_and_sent_to_nobody() -> None:
    hub, counters = make_hub()
    hub.open("c:a").add(IN_JSON, idle_outbox())
    hub.receive("c:a", b'{"v":9}', None)
    assert (hub.take_dirty(), counters.messages_bad) == ([], 1)


def test_a_stored_message_has_the_time_of_the_stream_and_any_other_that_of_its_arrival() -> None:
    hub, _ = make_hub(clock_ms=lambda: 5000)
    for name in ("user:ann", "c:a"):
        hub.open(name).add(IN_JSON, idle_outbox())
    durable = next(hub.durable_channels())
    durable.open(Epoch("e"), 0)
    hub.receive("user:ann", b"1", position(1))
    hub.receive("c:a", b"1", None)
    times = [message.envelope.time for batch in hub.take_dirty() for message in batch.messages.messages]
    assert times == [1_767_225_600_000, 5000]


def test_a_hole_is_reported_once_until_it_is_closed() -> None:
    hub, _ = make_hub()
    holes: list[DurableChannel] = []
    hub.on_hole = holes.append
    durable = hub.open("task:1").durable
    assert durable is not None
    durable.open(Epoch("e"), 0)
    hub.receive("task:1", b"1", position(1))
    assert holes == []
    for offset in (3, 5):
        hub.receive("task:1", b"1", position(offset, offset - 1))
    assert (holes, durable.state) == ([durable], DurableState.RECOVERING)
    durable.recover([], lost_until=4)
    hub.receive("task:1", b"1", position(9, 8))
    assert holes == [durable, durable]


# --- flushing -----------------------------------------------------------------------------------------------------


def test_the_hub_is_dirty_from_the_first_message_until_all_are_taken() -> None:
    hub, _ = make_hub()
    assert not hub.is_dirty
    for name in ("c:a", "c:b"):
        hub.open(name).add(IN_JSON, idle_outbox())
    for _ in range(2):
        hub.receive("c:a", b"1", None)
        hub.receive("c:b", b"2", None)
    dirty = [hub.is_dirty]
    assert [data_of(batch) for batch in hub.take_dirty()] == [[1, 1], [2, 2]]
    assert [*dirty, hub.is_dirty] == [True, False]


def test_the_hub_tells_of_what_no_burst_has_brought() -> None:
    hub, _ = make_hub()
    told = list[bool]()
    hub.on_dirty = lambda: told.append(hub.is_dirty)
    channel = hub.open("task:1")
    channel.add(IN_JSON, idle_outbox())
    assert channel.durable is not None
    channel.durable.open(Epoch("e"), 0)
    hub.receive("task:1", b"1", position(1))
    assert told == []
    hub.deliver(channel.durable, [])
    hub.take_dirty()
    hub.deliver(channel.durable, [])
    assert told == [True]


def test_a_push_is_counted_for_each_channel_that_a_connection_hears() -> None:
    hub, _ = make_hub(everyone=lambda: [(IN_JSON, idle_outbox())])
    both = idle_outbox()
    for name in ("c:a", "c:b"):
        hub.open(name).add(IN_JSON, both)
        hub.receive(name, b"1", None)
    assert [hub.has_few_pushes(most) for most in (0, 1, 2)] == [False, False, True]


def test_an_urgent_message_is_never_few_pushes() -> None:
    hub, _ = make_hub(ALARM, everyone=lambda: [(IN_JSON, idle_outbox())])
    hub.receive("alarm:fire", URGENT, None)
    assert not hub.has_few_pushes(100)


def test_a_hub_that_nobody_listens_to_works_as_well() -> None:
    hub, _ = make_hub()
    hub.flushed()
    channel = hub.open("task:1")
    channel.add(IN_JSON, idle_outbox())
    assert channel.durable is not None
    channel.durable.open(Epoch("e"), 0)
    hub.receive("task:1", b"1", position(1))
    hub.receive("task:1", b"1", position(3, 2))
    assert len(hub.take_dirty()) == 1
    hub.flushed()
    hub.flushed()


def test_who_waits_for_what_is_pending_learns_when_it_is_taken() -> None:
    hub, _ = make_hub()
    hub.open("c:a").add(IN_JSON, idle_outbox())
    assert hub.pending_taken().is_set()
    hub.receive("c:a", b"1", None)
    taken = [hub.pending_taken(), hub.pending_taken()]
    assert [each.is_set() for each in taken] == [False, False]
    hub.take_dirty()
    hub.receive("c:a", b"2", None)
    assert [each.is_set() for each in [*taken, hub.pending_taken()]] == [True, True, False]


def test_what_was_flushed_is_over_for_those_who_leave_later() -> None:
    hub, _ = make_hub()
    channel = hub.open("c:a")
    channel.add(IN_JSON, early := idle_outbox())
    channel.add(IN_JSON, late := idle_outbox())
    hub.receive("c:a", b"1", None)
    (batch,) = hub.take_dirty()
    channel.discard(IN_JSON, early)
    hub.flushed()
    channel.discard(IN_JSON, late)
    assert batch.left == {(id(batch.messages), early)}


# --- urgent messages ----------------------------------------------------------------------------------------------


def test_an_urgent_message_reaches_each_connection_once_and_before_all_others() -> None:
    subscriber, others = idle_outbox(), [idle_outbox() for _ in range(3)]
    everyone: list[tuple[Encoding, Outbox]] = [(IN_JSON, subscriber), *((IN_JSON, other) for other in others[:2])]
    everyone.append((IN_CBOR, others[2]))
    hub, _ = make_hub(ALARM, everyone=lambda: everyone)
    hub.open("alarm:fire").add(IN_JSON, subscriber)
    hub.receive("alarm:fire", URGENT, None)
    batches = hub.take_dirty()
    assert [(batch.messages.encoding, batch.members) for batch in batches] == [
        (IN_JSON, others[:2]),
        (IN_CBOR, others[2:]),
        (IN_JSON, [subscriber]),
    ]
    assert [data_of(batch) for batch in batches] == [["out!"]] * 3
    assert all(batch.messages.namespace.everywhere for batch in batches)
    assert batches[1].messages.joined() == IN_CBOR.encode(batches[1].messages.messages[0].envelope)
    assert hub.take_dirty() == []


def test_an_urgent_message_needs_no_subscriber() -> None:
    hub, _ = make_hub(ALARM, everyone=lambda: [(IN_JSON, idle_outbox())])
    hub.receive("alarm:fire", URGENT, None)
    hub.receive("alarm:flood", URGENT, None)
    hub.open("c:a").add(IN_JSON, idle_outbox())
    hub.receive("c:a", b"1", None)
    assert len(hub.take_dirty()) == 3


def test_connections_that_are_not_subscribed_keep_no_count_of_an_urgent_channel() -> None:
    subscriber, other = idle_outbox(), idle_outbox()
    hub, _ = make_hub(ALARM, everyone=lambda: [(IN_JSON, subscriber), (IN_JSON, other)])
    channel = hub.open("log:all")
    channel.add(IN_JSON, subscriber)
    assert channel.durable is not None
    channel.durable.open(Epoch("e"), 4)
    hub.receive("log:all", URGENT, position(7, 4))
    (broadcast,), (own,) = (batch.messages.messages for batch in hub.take_dirty())
    assert (broadcast.envelope.offset, broadcast.envelope.previous) == (None, None)
    assert (own.envelope.offset, own.envelope.previous) == (7, 4)


def test_an_urgent_message_that_recovery_brings_reaches_everybody_too() -> None:
    other = idle_outbox()
    hub, _ = make_hub(ALARM, everyone=lambda: [(IN_JSON, other)])
    durable = hub.open("log:all").durable
    assert durable is not None
    hub.deliver(durable, [Envelope("pub", channel="log:all", data=1, priority=9)])
    assert [batch.members for batch in hub.take_dirty()] == [[other]]


def test_a_message_that_is_not_urgent_reaches_subscribers_alone() -> None:
    hub, _ = make_hub(ALARM, everyone=lambda: [(IN_JSON, idle_outbox())])
    hub.open("alarm:fire").add(IN_JSON, subscriber := idle_outbox())
    hub.receive("alarm:fire", b'{"v":1,"pr":7,"d":"drill"}', None)
    assert [batch.members for batch in hub.take_dirty()] == [[subscriber]]
