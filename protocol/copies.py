"""Copies: an event that concerns several channels is published once to each. Pure.

`x.via` of each copy names the channels before it, so that a hub can leave out the connections subscribed to one of
those: a viewer of several of the channels gets the event once.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from fanline.protocol.envelope import Envelope
from fanline.protocol.extra import VIA


def copies_of(envelope: Envelope, channels: Iterable[str]) -> Iterator[Envelope]:
    """One copy of an event for each channel, in order: the process that accepts the event publishes these."""
    earlier: list[str] = []
    for channel in dict.fromkeys(channels):
        extra = {**(envelope.extra or {}), VIA: [*earlier]} if earlier else envelope.extra
        yield replace(envelope, channel=channel, extra=extra)
        earlier.append(channel)


def via_of(envelope: Envelope) -> Sequence[str]:
    """The channels on which earlier copies of a message were published."""
    return () if envelope.extra is None else envelope.extra.get(VIA, ())


def as_delivered(envelope: Envelope) -> Envelope:
    """A message as clients get it: without the keys that are only for hubs."""
    extra = envelope.extra
    if envelope.excluded is None and (extra is None or VIA not in extra):
        return envelope
    shown = {key: value for key, value in (extra or {}).items() if key != VIA}
    return replace(envelope, extra=shown or None, excluded=None)
