"""A group: who gets which of the pending messages, as members come and go between two flushes and during one."""

import pytest

from fanline.engine.channels.group import Group, Left
from fanline.engine.namespaces import Namespace
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope
from tests.engine.parts import idle_outbox

ENCODING = encoding_of(JSON, deflated=False)
NAMESPACE = Namespace(history=7)


def message(number: int) -> Envelope:
    return Envelope("pub", channel="c:a", data=number)


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
    batch = group.take(set())
    assert (batch.members, batch.joiners) == ([early], {late: 1, last: 2})
    assert (group.members, group.joiners) == ({early: None, late: None, last: None}, {})


def test_a_batch_is_what_was_pending_in_order_with_its_frames(group: Group) -> None:
    group.add(idle_outbox())
    messages = [message(1), message(2)]
    for one in messages:
        group.append(one)
    batch = group.take(set()).messages
    assert [each.envelope for each in batch.messages] == messages
    assert batch.joined() == b"".join(map(ENCODING.encode, messages))
    assert (batch.encoding, batch.namespace) == (ENCODING, NAMESPACE)


def test_after_a_flush_nothing_is_pending_and_all_are_members(group: Group) -> None:
    group.add(idle_outbox())
    group.append(message(1))
    group.add(idle_outbox())
    group.take(set())
    group.add(newest := idle_outbox())
    batch = group.take(set())
    assert (batch.messages.messages, len(batch.members), batch.joiners) == ([], 3, {})
    assert newest in group.members


def test_a_batch_keeps_its_members_whoever_comes_or_goes(group: Group) -> None:
    group.add(stays := idle_outbox())
    group.add(goes := idle_outbox())
    group.append(message(1))
    batch = group.take(set())
    group.discard(goes)
    group.add(idle_outbox())
    assert batch.members == [stays, goes]


def test_a_group_is_empty_once_its_members_and_its_joiners_have_left(group: Group) -> None:
    member, joiner = idle_outbox(), idle_outbox()
    assert group.empty
    group.add(member)
    group.append(message(1))
    group.add(joiner)
    assert (list(group), group.empty) == ([member, joiner], False)
    group.discard(member)
    assert (list(group), group.empty) == ([joiner], False)
    group.discard(joiner)
    assert (list(group), group.empty) == ([], True)


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
    batch = group.take(left)
    assert batch.left is left
    group.discard(first)
    group.discard(second)
    assert left == {(id(batch.messages), first), (id(batch.messages), second)}
    group.flushing = None
    group.discard(third)
    assert len(left) == 2
