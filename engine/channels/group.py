"""A group: the subscribers of one channel with the same encoding. A message is encoded once for all of them.

A member that is left out of a message, or joined while others were pending, is kept apart until the next flush: members
with the same portion of the pending messages get a batch of their own. Leaving out a durable message would look like a
hole to the client, so its next message of the channel is encoded again, to follow on what it was really sent.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import msgspec

from fanline.engine.namespaces import Namespace
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.websocket.ack_pings import ack_ping

Left = set[tuple[int, Outbox]]
"""Who has left a group during a flush: the `id` of the messages that are no longer for them, and the outbox."""


class FlushBatch(msgspec.Struct, frozen=True, gc=False):
    """What members of one group are sent: a snapshot, so that they may come and go while it is sent in slices."""

    members: list[Outbox]
    messages: EncodedBatch
    left: Left
    """One set for all batches of a flush, nearly always empty."""


class Link(NamedTuple):
    """What the next message for a member has to say, since the member was left out of the ones before it."""

    follows: int
    """The offset that it follows on."""
    epoch: str | None
    """The epoch that it has to tell of."""


class Portion(NamedTuple):
    """Which of the pending messages a member gets."""

    start: int = 0
    """Index of the first one."""
    left_out: tuple[int, ...] = ()
    """Indexes of those that it does not get."""
    link: Link | None = None
    """What was left out before them."""


class Group:
    """Its members, and the messages they have not been sent yet."""

    __slots__ = ("acknowledges", "apart", "encoding", "flushing", "members", "namespace", "pending")

    def __init__(self, encoding: Encoding, namespace: Namespace) -> None:
        self.encoding = encoding
        self.namespace = namespace
        self.acknowledges = namespace.inbox and encoding.dialect.is_plain
        """Whether the members acknowledge what they are sent with the pong to a ping behind it."""
        self.members: dict[Outbox, None] = {}
        """Those that get all pending messages as they are."""
        self.apart: dict[Outbox, Portion] = {}
        """All others."""
        self.pending: list[EncodedMessage] = []
        self.flushing: Sequence[FlushBatch] = ()  # taken, and not sent to all members yet

    def __iter__(self) -> Iterator[Outbox]:
        return itertools.chain(self.members, self.apart)

    def __contains__(self, outbox: Outbox) -> bool:
        return outbox in self.members or outbox in self.apart

    def __len__(self) -> int:
        return len(self.members) + len(self.apart)

    def common(self, other: "Group") -> set[Outbox]:
        """The members of both groups."""
        found = self.members.keys() & other.members.keys()
        if self.apart or other.apart:
            found |= self.apart.keys() & other.members.keys()
            found |= self.members.keys() & other.apart.keys()
            found |= self.apart.keys() & other.apart.keys()
        return found

    def add(self, outbox: Outbox) -> None:
        """Send an outbox all messages from now on."""
        if self.pending:
            self.apart[outbox] = Portion(start=len(self.pending))
        else:
            self.members[outbox] = None
        outbox.subscriptions += 1

    def discard(self, outbox: Outbox) -> None:
        """Send a member nothing more, nor the rest of a flush that is under way."""
        if outbox in self.members:
            del self.members[outbox]
        else:
            del self.apart[outbox]
        outbox.subscriptions -= 1
        for batch in self.flushing:
            batch.left.add((id(batch.messages), outbox))

    def append(self, envelope: Envelope, left_out: Collection[Outbox] = ()) -> None:
        """Have a message sent at the next flush, to all members but those that are left out."""
        self.pending.append(self._encoded(envelope))
        for outbox in left_out:
            portion = self.apart.get(outbox) or Portion()
            self.members.pop(outbox, None)
            self.apart[outbox] = portion._replace(left_out=(*portion.left_out, len(self.pending) - 1))

    def _encoded(self, envelope: Envelope) -> EncodedMessage:
        frame = self.encoding.encode(envelope)
        if self.acknowledges and envelope.offset is not None:
            frame += ack_ping(envelope.channel or "", envelope.offset)
        return EncodedMessage(frame, envelope)

    def take(self, left: Left) -> Sequence[FlushBatch]:
        """The pending messages and their receivers; all members get the next messages. `left`: that of the flush."""
        pending, self.pending = self.pending, []
        apart, self.apart = self.apart, {}
        batches = [self._batch(list(self.members), pending, left)] if self.members else []
        for portion, outboxes in _by_portion(apart).items():
            messages, link = _portion_of(pending, portion, self._encoded)
            if messages:
                batches.append(self._batch(outboxes, messages, left))
            if link is None:
                self.members.update(dict.fromkeys(outboxes))
            else:
                self.apart.update(dict.fromkeys(outboxes, Portion(link=link)))
        self.flushing = batches
        return batches

    def _batch(self, members: list[Outbox], messages: list[EncodedMessage], left: Left) -> FlushBatch:
        return FlushBatch(members, EncodedBatch(messages, self.encoding, self.namespace), left)


def _by_portion(apart: dict[Outbox, Portion]) -> dict[Portion, list[Outbox]]:
    """Those that get the same, together."""
    found: dict[Portion, list[Outbox]] = {}
    for outbox, portion in apart.items():
        found.setdefault(portion, []).append(outbox)
    return found


def _portion_of(
    pending: Sequence[EncodedMessage], portion: Portion, encoded: Callable[[Envelope], EncodedMessage]
) -> tuple[list[EncodedMessage], Link | None]:
    """A portion of the pending messages, and what the first message after them has to say."""
    messages, link, left_out = list[EncodedMessage](), portion.link, frozenset(portion.left_out)
    for index in range(portion.start, len(pending)):
        message = pending[index]
        envelope = message.envelope
        if index in left_out:
            link = _left_out(envelope, link)
        elif link is not None and envelope.type == MessageType.GAP:
            messages.append(message)  # it tells of its epoch, and what it reports is what the next message follows on
            link = None if envelope.data.get("to") is not None else link
        elif link is not None and envelope.previous is not None:
            linked = msgspec.structs.replace(envelope, previous=link.follows, epoch=envelope.epoch or link.epoch)
            messages.append(encoded(linked))
            link = None
        else:
            messages.append(message)
    return messages, link


def _left_out(envelope: Envelope, link: Link | None) -> Link | None:
    """What the next message has to say once this one was left out; on an ephemeral channel nothing."""
    if envelope.previous is None:
        return link
    if link is None:
        return Link(envelope.previous, envelope.epoch)
    return link if envelope.epoch is None else link._replace(epoch=envelope.epoch)
