"""A group: the subscribers of one channel with the same encoding. A message is encoded once for all of them."""

import itertools
from collections.abc import Iterator

import msgspec

from fanline.engine.namespaces import Namespace
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.ack_pings import ack_ping

Left = set[tuple[int, Outbox]]
"""Who has left a group during a flush: the `id` of the messages that are no longer for them, and the outbox."""


class FlushBatch(msgspec.Struct, frozen=True, gc=False):
    """What one group has to send: a snapshot, so that members may come and go while it is sent in slices."""

    members: list[Outbox]
    messages: EncodedBatch
    joiners: dict[Outbox, int]
    """Outbox -> how many of the messages, from the first, are not for it."""
    left: Left
    """One set for all batches of a flush, nearly always empty."""


class Group:
    """Its members, and the messages they have not been sent yet."""

    __slots__ = ("acknowledges", "encoding", "flushing", "joiners", "members", "namespace", "pending")

    def __init__(self, encoding: Encoding, namespace: Namespace) -> None:
        self.encoding = encoding
        self.namespace = namespace
        self.acknowledges = namespace.inbox and encoding.dialect.is_plain
        """Whether the members acknowledge what they are sent with the pong to a ping behind it."""
        self.members: dict[Outbox, None] = {}
        self.pending: list[EncodedMessage] = []
        self.joiners: dict[Outbox, int] = {}  # came while messages were pending: how many of those are not theirs
        self.flushing: FlushBatch | None = None  # taken, and not sent to all members yet

    def __iter__(self) -> Iterator[Outbox]:
        return itertools.chain(self.members, self.joiners)

    @property
    def empty(self) -> bool:
        return not self.members and not self.joiners

    def add(self, outbox: Outbox) -> None:
        """Send an outbox all messages from now on."""
        if self.pending:
            self.joiners[outbox] = len(self.pending)
        else:
            self.members[outbox] = None
        outbox.subscriptions += 1

    def discard(self, outbox: Outbox) -> None:
        """Send a member nothing more, nor the rest of a flush that is under way."""
        if outbox in self.members:
            del self.members[outbox]
        else:
            del self.joiners[outbox]
        outbox.subscriptions -= 1
        if self.flushing is not None:
            self.flushing.left.add((id(self.flushing.messages), outbox))

    def append(self, envelope: Envelope) -> None:
        """Have a message sent at the next flush."""
        frame = self.encoding.encode(envelope)
        if self.acknowledges and envelope.offset is not None:
            frame += ack_ping(envelope.channel or "", envelope.offset)
        self.pending.append(EncodedMessage(frame, envelope))

    def take(self, left: Left) -> FlushBatch:
        """The pending messages and whose they are; joiners become members. `left`: that of the flush."""
        messages = EncodedBatch(self.pending, self.encoding, self.namespace)
        self.flushing = batch = FlushBatch(list(self.members), messages, self.joiners, left)
        self.pending = []
        if self.joiners:
            self.members.update(dict.fromkeys(self.joiners))
            self.joiners = {}
        return batch
