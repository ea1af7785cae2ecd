"""Presence as clients use it: who may ask, who is notified, and under which name a session is on a channel."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial

from fanline.engine.access.identity import Identity
from fanline.engine.access.permissions import Permissions
from fanline.engine.bus.errors import BusError
from fanline.engine.channels.joining.join import Joining
from fanline.engine.channels.joining.start import presence_of
from fanline.engine.channels.subscription import ChannelSubscription
from fanline.engine.presence.online import OnlineCounter
from fanline.engine.presence.presence import Presence
from fanline.engine.presence.subscription import PresentSubscription
from fanline.engine.presence.watch import PresenceWatch
from fanline.engine.sessions.session import Session
from fanline.protocol.auth.rights import EVERY_CHANNEL, Right
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.messages.answers import ErrorData

Begin = Callable[[ChannelSubscription], None]
"""Called with the subscription in the step in which a `sub` is answered."""
_NOTHING: AbstractAsyncContextManager[Begin] = nullcontext(lambda _: None)


class Attending:
    """For all sessions of one worker."""

    def __init__(self, joining: Joining, presence: Presence, online: OnlineCounter, permissions: Permissions) -> None:
        self._joining = joining
        self._presence = presence
        self._online = online
        self._permissions = permissions

    def subscription(self, session: Session, channel: str) -> ChannelSubscription:
        """A subscription that holds nothing yet; on a channel with presence, its user will be on the channel."""
        make = self._presence if self._presence.covers(channel) else self._joining
        return make.subscription(channel, session.encoding, session.outbox)

    def beginning(self, session: Session, command: Envelope, channel: str) -> AbstractAsyncContextManager[Begin]:
        """Around the join that a `sub` asks for. MessageError, BusError on entering."""
        if not self._presence.covers(channel):
            if presence_of(command):
                self._presence.check_covers(channel)
            return _NOTHING
        wanted = presence_of(command)
        if session.encoding.dialect.is_plain:
            return self._perhaps_viewing(session, channel)
        if wanted:
            return self._viewing(session, channel)

        def enter(subscription: ChannelSubscription) -> None:
            assert isinstance(subscription, PresentSubscription)
            subscription.enter(session.identity)
            if wanted is False:
                subscription.look_away()

        return nullcontext(enter)

    @asynccontextmanager
    async def _viewing(self, session: Session, channel: str) -> AsyncIterator[Begin]:
        await self._permissions.check(session.identity, Right.PRESENCE, channel)
        async with self._presence.watches.following(channel) as watch:

            def enter(subscription: ChannelSubscription) -> None:
                assert isinstance(subscription, PresentSubscription)
                subscription.enter(session.identity)
                subscription.view(watch)

            yield enter

    @asynccontextmanager
    async def _perhaps_viewing(self, session: Session, channel: str) -> AsyncIterator[Begin]:
        """For a plain client, which has not asked who is there: it is notified of who joins and leaves if it may know,
        and does not wait for workers that do not answer.
        """
        identity, watches = session.identity, self._presence.watches
        may_look = await self._may_look(session, channel)
        async with AsyncExitStack() as stack:
            watch: PresenceWatch | None = None
            if may_look and watches.all_answer:
                with suppress(BusError):
                    watch = await stack.enter_async_context(watches.following(channel))

            def enter(subscription: ChannelSubscription) -> None:
                assert isinstance(subscription, PresentSubscription)
                subscription.enter(session.identity)
                if watch is not None:
                    subscription.view(watch)
                elif may_look:
                    watches.when_ready(channel, partial(view, subscription))

            def view(subscription: PresentSubscription, late: PresenceWatch) -> None:
                if session.identity is identity and subscription.is_present:
                    subscription.view(late)

            yield enter

    async def _may_look(self, session: Session, channel: str) -> bool:
        try:
            await self._permissions.check(session.identity, Right.PRESENCE, channel)
        except MessageError:
            return False
        return True

    async def identify(self, session: Session) -> None:
        """The session has another identity: it is on its channels under that one."""
        for subscription in [*(session.subscriptions or {}).values()]:
            if isinstance(subscription, PresentSubscription):
                subscription.enter(session.identity)
                if subscription.is_viewer:
                    await self._check_viewer(session, subscription)

    async def _check_viewer(self, session: Session, subscription: PresentSubscription) -> None:
        """A client that may no longer watch is told so."""
        try:
            await self._permissions.check(session.identity, Right.PRESENCE, subscription.name)
        except MessageError as error:
            subscription.look_away()
            data = ErrorData(code=error.code, message=str(error)).fields()
            session.push(Envelope(MessageType.ERR, channel=subscription.name, data=data))

    async def query(self, identity: Identity, channel: str | None) -> Envelope:
        """The answer to `presence`. MessageError, BusError."""
        if channel is None:
            if Right.PRESENCE not in identity.grants.on(EVERY_CHANNEL):
                raise MessageError(ErrorCode.PERMISSION_DENIED, "you have no right to presence on all channels")
            return Envelope(MessageType.OK, data=(await self._online.count()).fields())
        await self._permissions.check(identity, Right.PRESENCE, channel)
        self._presence.check_covers(channel)
        async with self._presence.watches.following(channel) as watch:
            return Envelope(MessageType.OK, channel=channel, data=watch.news.data())
