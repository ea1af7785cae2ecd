"""A subscription to a channel with presence: its user is on the channel from `enter` to the end of the subscription."""

from typing import TYPE_CHECKING

from fanline.engine.access.identity import Identity
from fanline.engine.channels.subscription import ChannelSubscription, Router
from fanline.engine.presence.watch import PresenceWatch
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects.encoding import Encoding

if TYPE_CHECKING:
    from fanline.engine.presence.presence import Presence


class PresentSubscription(ChannelSubscription):
    """Holds a place on the channel, and as a viewer the watch; whatever ends it, gives both back."""

    __slots__ = ("_identity", "_presence", "_watch")

    def __init__(self, router: Router, name: str, encoding: Encoding, outbox: Outbox, presence: "Presence") -> None:
        super().__init__(router, name, encoding, outbox)
        self._presence = presence
        self._identity: Identity | None = None  # while it has a place
        self._watch: PresenceWatch | None = None  # while it is a viewer

    def enter(self, identity: Identity) -> None:
        """The connection is on the channel under this identity, also if it was there under another one."""
        before, self._identity = self._identity, identity
        if before is identity:
            return
        self._presence.enter(self.name, identity.user, identity.username)
        if before is not None:
            self._presence.leave(self.name, before.user)

    @property
    def is_present(self) -> bool:
        """Whether it has a place on the channel."""
        return self._identity is not None

    @property
    def is_viewer(self) -> bool:
        """Whether the client gets notices of users who come and go."""
        return self._watch is not None

    def view(self, watch: PresenceWatch) -> None:
        """Tell the client from now on who comes and goes."""
        if self._watch is None:
            self._presence.watches.hold(watch)
            watch.add(self.encoding, self.outbox)
            self._watch = watch

    def look_away(self) -> None:
        """Tell the client no more who comes and goes."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.discard(self.encoding, self.outbox)
            self._presence.watches.release(watch)

    def leave(self) -> None:
        super().leave()
        identity = self._give_back()
        if identity is not None:
            self._presence.leave(self.name, identity.user)

    def lose(self) -> None:
        super().leave()
        identity = self._give_back()
        if identity is not None:
            self._presence.lose(self.name, identity.user)

    def _give_back(self) -> Identity | None:
        self.look_away()
        identity, self._identity = self._identity, None
        return identity
