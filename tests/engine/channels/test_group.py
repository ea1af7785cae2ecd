"""A group: who gets which of the pending messages, as members come and go between two flushes and during one."""

import pytest

from fanline.engine.channels.group import Group, Left
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope
from tests.engine.parts import idle_outbox

ENCODING = encoding_of(JSON, deflated=False)
NAMESPACE = Namespace(history=7)


def message(number: int) -> Envelope:
    return Envelope("pub", channel="c:a", data=number)


def got(group: Group) -> dict[Outbox, list[object]]:
    """What each member is sent by the next flush."""
    everyone: dict[Outbox, list[object]] = {outbox: [] for outbox in group}
    for batch in group.take(set()):
        for outbox in batch.members:
            everyone[outbox] += [message.envelope.data for message in batch.messages.messages]
    return everyone


@pytest.fixture
def group() -> Group:
    return Group(ENCODING, NAMESPACE)


def test_who_comes_while_messages_are_pending_gets_only_the_later_ones(group: Group) -> None:
    early, late, last = idle_outbox(), idle_outbox(), idle_outbox()
    group.add(early)
    group.append(message(1))
    group.add(late)
    group.append(message(2))
    group.add(last)
    assert got(group) == {early: [1, 2], late: [2], last: []}
    assert (group.members, group.apart) == ({early: None, late: None, last: None}, {})


def test_a_batch_is_what_was_pending_in_order_with_its_frames(group: Group) -> None:  # S5-44
    group.add(idle_outbox())
    messages = [message(1), message(2)]
    for one in messages:
        group.append(one)
    (taken,) = group.take(set())
    batch = taken.messages
    assert [each.envelope for each in batch.messages] == messages
    assert batch.joined() == b"".join(map(ENCODING.encode, messages))
    assert (batch.encoding, batch.namespace) == (ENCODING, NAMESPACE)


def test_after_a_flush_nothing_is_pending_and_all_are_members(group: Group) -> None:
    group.add(idle_outbox())
    group.append(message(1))
    group.add(idle_outbox())
    group.take(set())
    group.add(newest := idle_outbox())
    assert group.pending == []
    assert (len(group.members), group.apart) == (3, {})
    assert newest in group.members


def test_a_batch_keeps_its_members_whoever_comes_or_goes(group: Group) -> None:
    group.add(stays := idle_outbox())
    group.add(goes := idle_outbox())
    group.append(message(1))
    (batch,) = group.take(set())
    group.discard(goes)
    group.add(idle_outbox())
    assert batch.members == [stays, goes]


def test_a_group_is_empty_once_its_members_and_its_joiners_have_left(group: Group) -> None:
    member, joiner = idle_outbox(), idle_outbox()
    assert not group
    group.add(member)
    group.append(message(1))
    group.add(joiner)
    assert list(group) == [member, joiner]
    group.discard(member)
    assert list(group) == [joiner]
    group.discard(joiner)
    assert not group


def test_an_outbox_counts_the_groups_it_is_in(group: Group) -> None:
    outbox, other = idle_outbox(), Group(ENCODING, NAMESPACE)
    for each in (group, other):
        each.append(message(1))
        each.add(outbox)
    assert outbox.subscriptions == 2
    group.take(set())
    group.discard(outbox)
    other.discard(outbox)
    assert outbox.subscriptions == 0


def test_who_leaves_during_a_flush_is_noted_and_who_leaves_otherwise_is_not(group: Group) -> None:
    first, second, third = outboxes = [idle_outbox() for _ in range(3)]
    for outbox in outboxes:
        group.add(outbox)
    group.append(message(1))
    left: Left = set()
    (batch,) = group.take(left)
    assert batch.left is left
    group.discard(first)
    group.discard(second)
    assert left == {(id(batch.messages), first), (id(batch.messages), second)}
    group.flushing = ()
    group.discard(third)
    assert len(left) == 2


# --- left out -------------------------------------------------------------------------------------------------------


def stored(offset: int, previous: int, epoch: str | None = None) -> Envelope:
    return Envelope("pub", channel="c:a", offset=offset, previous=previous, epoch=epoch, data=offset)


def sent(group: Group) -> dict[Outbox, list[Envelope]]:
    """The messages of the next flush as the frames say them, which is what the batches say."""
    everyone: dict[Outbox, list[Envelope]] = {outbox: [] for outbox in group}
    for batch in group.take(set()):
        messages = batch.messages.messages
        assert [each.frame for each in messages] == [ENCODING.encode(each.envelope) for each in messages]
        for outbox in batch.members:
            everyone[outbox] += [each.envelope for each in messages]
    return everyone


def test_who_is_left_out_gets_all_other_messages_with_a_whole_chain(group: Group) -> None:
    here, out = idle_outbox(), idle_outbox()
    group.add(here)
    group.add(out)
    group.append(stored(3, 0))
    group.append(stored(5, 3), {out})
    group.append(stored(6, 5), {out})
    group.append(stored(9, 6))
    group.append(stored(12, 9))
    flushed = sent(group)
    assert [(each.offset, each.previous) for each in flushed[here]] == [(3, 0), (5, 3), (6, 5), (9, 6), (12, 9)]
    assert [(each.offset, each.previous) for each in flushed[out]] == [(3, 0), (9, 3), (12, 9)]
    assert list(group.members) == [here, out]


def test_the_next_message_follows_on_what_was_sent_also_if_it_comes_flushes_later(group: Group) -> None:
    group.add(out := idle_outbox())
    group.append(stored(3, 0), {out})
    assert sent(group) == {out: []}
    group.append(stored(4, 3), {out})
    assert sent(group) == {out: []}
    assert list(group) == [out]
    group.append(stored(7, 4))
    group.append(stored(8, 7))
    assert [(each.offset, each.previous) for each in sent(group)[out]] == [(7, 0), (8, 7)]
    assert (list(group.members), group.apart) == ([out], {})


def test_an_epoch_that_a_left_out_message_would_have_told_is_told_by_the_next_one(group: Group) -> None:
    group.add(out := idle_outbox())
    group.append(stored(3, 0, epoch="first"), {out})
    group.append(stored(4, 3, epoch="second"), {out})
    group.append(stored(5, 4), {out})
    group.append(stored(6, 5))
    group.append(stored(7, 6))
    assert [(each.previous, each.epoch) for each in sent(group)[out]] == [(0, "second"), (6, None)]


def test_a_gap_is_what_the_next_message_follows_on(group: Group) -> None:
    gap = Envelope("gap", channel="c:a", epoch="e", data={"from": 4, "to": 9, "reason": "expired"})
    group.add(out := idle_outbox())
    group.append(stored(3, 0), {out})
    group.append(gap)
    group.append(stored(11, 9))
    first, second = sent(group)[out]
    assert first is gap
    assert (second.offset, second.previous) == (11, 9)


def test_a_gap_without_offsets_changes_nothing_about_the_chain(group: Group) -> None:
    gap = Envelope("gap", channel="c:a", epoch="e", data={"reason": "fault"})
    group.add(out := idle_outbox())
    group.append(stored(3, 2), {out})
    group.append(gap)
    group.append(stored(4, 3))
    assert [each.previous for each in sent(group)[out]] == [None, 2]


def test_an_ephemeral_message_leaves_nothing_behind(group: Group) -> None:
    group.add(out := idle_outbox())
    group.append(message(1), {out})
    group.append(message(2))
    assert got(group) == {out: [2]}
    group.append(message(3), {out})
    assert got(group) == {out: []}
    assert (list(group.members), group.apart) == ([out], {})


def test_who_comes_late_can_be_left_out_and_can_leave(group: Group) -> None:
    group.append(message(1))
    late, gone = idle_outbox(), idle_outbox()
    group.add(late)
    group.add(gone)
    group.append(message(2), {late, gone})
    group.append(message(3))
    group.discard(gone)
    assert got(group) == {late: [3]}


def test_those_with_the_same_share_get_the_same_bytes(group: Group) -> None:
    outs = [idle_outbox() for _ in range(5)]
    for outbox in outs:
        group.add(outbox)
    group.append(stored(3, 0), outs)
    group.append(stored(4, 3))
    (batch,) = group.take(set())
    assert batch.members == outs


def test_who_leaves_during_a_flush_gets_nothing_more_of_its_own_share_either(group: Group) -> None:
    here, out = idle_outbox(), idle_outbox()
    group.add(here)
    group.add(out)
    group.append(stored(3, 0), {out})
    group.append(stored(4, 3))
    left: Left = set()
    batches = group.take(left)
    group.discard(out)
    assert {(id(batch.messages), out) for batch in batches} == left
