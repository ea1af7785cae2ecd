"""A channel in a worker, and its subscribers."""

from collections.abc import Iterator

from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.group import Group
from fanline.engine.faults import fault_gap
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope
from fanline.protocol.messages.notices import GapReason


class Channel:
    """A channel that is open in this worker: there is interest in it, and the bus routes it here. `task:*` is one,
    too: it stands for all channels of its namespace, and has no log.
    """

    __slots__ = ("_awaiting", "durable", "groups", "interest", "name", "namespace")

    def __init__(self, name: str, namespace: Namespace, durable: DurableChannel | None) -> None:
        self.name = name
        self.namespace = namespace
        self.durable = durable
        self.interest = 0
        """How many hold it open; counted by `Hub.open` and `Hub.close` alone."""
        self.groups: tuple[Group, ...] = ()
        self._awaiting: set[Outbox] | None = None  # None: no one, as nearly always

    def __iter__(self) -> Iterator[Outbox]:
        """The subscribers that are sent its messages."""
        for group in self.groups:
            yield from group

    def add(self, encoding: Encoding, outbox: Outbox) -> None:
        """Send an outbox the messages that are received from now on, and no others."""
        group = self._group(encoding)
        if group is None:
            group = Group(encoding, self.namespace)
            self.groups += (group,)
        group.add(outbox)

    def discard(self, encoding: Encoding, outbox: Outbox) -> None:
        """Send an outbox that was added nothing more."""
        group = self._group(encoding)
        assert group is not None
        group.discard(outbox)
        if not group:
            self.groups = tuple(other for other in self.groups if other is not group)

    def await_log(self, outbox: Outbox) -> None:
        """What is received from now on reaches this outbox by the log."""
        self._awaiting = self._awaiting or set()
        self._awaiting.add(outbox)

    def stop_awaiting(self, outbox: Outbox) -> None:
        """What is received from now on does so no longer."""
        assert self._awaiting is not None
        self._awaiting.discard(outbox)
        self._awaiting = self._awaiting or None

    def also_in(self, group: Group) -> set[Outbox]:
        """The members of a group, perhaps another channel's, that are subscribed to this channel, too."""
        own = self._group(group.encoding)
        found = set() if own is None else own.common(group)
        return found if self._awaiting is None else found | {outbox for outbox in self._awaiting if outbox in group}

    def substitutes(self, envelope: Envelope) -> Iterator[Envelope]:
        """What is sent in place of a message that cannot be encoded, as far as that can be."""
        durable = self.durable
        if durable is None or envelope.offset is None:
            yield fault_gap(self.name, None)
            return
        yield durable.gap(envelope.offset, envelope.offset, GapReason.FAULT)
        if durable.fold is not None:
            yield durable.snapshot()

    def _group(self, encoding: Encoding) -> Group | None:
        for group in self.groups:
            if group.encoding is encoding:
                return group
        return None
