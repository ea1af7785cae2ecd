"""Subscribers that are left out of a message: the one that `n` names, and those that get the same on another channel.

Asked only about messages with `n` or `x`, and about those that go to the subscribers of a whole namespace.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.group import Group
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.channels import pattern_of
from fanline.protocol.copies import via_of
from fanline.protocol.envelope import Envelope

FindOutbox = Callable[[str], Outbox | None]
"""The outbox of the connection with a public id; None if it is not one of this worker's."""


class Omissions:
    """`channels`: those that are open, by name; the hub's own map."""

    def __init__(self, channels: Mapping[str, Channel], find: FindOutbox) -> None:
        self._channels = channels
        self._find = find

    def of(self, envelope: Envelope, group: Group, *, by_pattern: bool = False) -> set[Outbox]:
        """The members of a group that do not get a message. `by_pattern`: the group gets the whole namespace, so
        members that have subscribed to the channel itself get the message there.
        """
        named = self._named(envelope)
        left_out = {named} if named is not None and named in group else set()
        for channel in self._heard_before(envelope):
            left_out |= channel.also_in(group)
        own = self._channels.get(envelope.channel or "") if by_pattern else None
        return left_out if own is None else left_out | own.also_in(group)

    def of_all(self, envelope: Envelope) -> set[Outbox]:
        """All connections that do not get a message, or get it as subscribers."""
        named = self._named(envelope)
        left_out = set() if named is None else {named}
        for channel in (*self._heard_before(envelope), *self._that_carry((envelope.channel or "",))):
            left_out.update(channel)
        return left_out

    def _named(self, envelope: Envelope) -> Outbox | None:
        return None if envelope.excluded is None else self._find(envelope.excluded)

    def _heard_before(self, envelope: Envelope) -> Iterator[Channel]:
        return self._that_carry(via_of(envelope))

    def _that_carry(self, names: Iterable[str]) -> Iterator[Channel]:
        """The open channels that get messages of these: they themselves, and their namespaces."""
        for name in names:
            for known in (self._channels.get(name), self._channels.get(pattern_of(name))):
                if known is not None:
                    yield known
