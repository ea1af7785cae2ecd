"""A channel whose presence this worker follows: its roster, and the viewers who are sent its changes."""

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.channels.group import Group
from fanline.engine.namespaces import Namespace
from fanline.engine.presence.news import PresenceNews
from fanline.engine.presence.roster import Roster
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding

_NEVER_DROPPED = Namespace()
"""Notices are few and each one counts, whatever the channel's namespace says of its messages."""


class PresenceWatch:
    """`limit`: users above which the channel is large."""

    __slots__ = ("asked", "error", "groups", "interest", "name", "news", "ready", "resting_since", "roster")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.roster = Roster()
        self.news = PresenceNews(name, self.roster, limit)
        self.groups: tuple[Group, ...] = ()
        """The viewers, by their encodings."""
        self.interest = 0
        """How many need it: viewers, and queries under way."""
        self.resting_since = 0.0
        """Trio time at which the interest ended."""
        self.ready = trio.Event()
        """The workers have been asked; or that has failed, and `error` says why."""
        self.error: BusError | None = None
        self.asked: set[str] = set()
        """Workers from which a snapshot is on its way, after a delta of theirs was lost."""

    def add(self, encoding: Encoding, outbox: Outbox) -> None:
        """Tell a viewer what changes from now on."""
        group = next((group for group in self.groups if group.encoding is encoding), None)
        if group is None:
            group = Group(encoding, _NEVER_DROPPED)
            self.groups += (group,)
        group.add(outbox)

    def discard(self, encoding: Encoding, outbox: Outbox) -> None:
        """Tell a viewer nothing more."""
        group = next(group for group in self.groups if group.encoding is encoding)
        group.discard(outbox)
        if not group:
            self.groups = tuple(other for other in self.groups if other is not group)
