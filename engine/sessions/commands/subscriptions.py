"""How a session subscribes, unsubscribes, and takes up what another connection had subscribed to."""

from collections.abc import Mapping

import trio

from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.revoked.removals import Removals
from fanline.engine.bus.errors import BusError
from fanline.engine.channels.joining.join import Answer, Joining
from fanline.engine.channels.joining.start import Live, start_of
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.sessions.attending import Attending, Begin
from fanline.engine.sessions.refusals import refusal
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.store import SessionStore
from fanline.protocol.auth.revocation import Removal
from fanline.protocol.auth.rights import Right
from fanline.protocol.channels import is_pattern
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.hooks.events import ChannelSubscribed
from fanline.protocol.messages.commands import command_channel


class SubscriptionCommands:
    """Subscribes the sessions of one worker."""

    def __init__(
        self,
        *,
        permissions: Permissions,
        removals: Removals,
        attending: Attending,
        audit: Audit,
        joining: Joining,
        store: SessionStore,
        hits: LimitHits,
        max_subscriptions: int,
    ) -> None:
        self._permissions = permissions
        self._removals = removals
        self._attending = attending
        self._audit = audit
        self._joining = joining
        self._store = store
        self._hits = hits
        self._max_subscriptions = max_subscriptions
        self._entering: dict[Session, trio.Event] = {}

    async def subscribe(self, session: Session, command: Envelope, answer: Answer) -> None:
        """Subscribe as a `sub` says. MessageError, BusError."""
        channel, mark = command_channel(command, or_pattern=True), self._removals.mark()
        await self._permissions.check(session.identity, Right.SUB, channel)
        await self.enter(session, command, channel, answer)
        removal = self._removals.since(mark, session.identity.user, channel)
        if removal is not None:  # it came between the check and the answer, and found no subscription
            end_removed(session, removal, channel)

    async def enter(self, session: Session, command: Envelope, channel: str, answer: Answer) -> None:
        """Subscribe a session that may do so; one `sub` of a session after the other, also if an operator sends one.
        MessageError, BusError.
        """
        while (busy := self._entering.get(session)) is not None:
            await busy.wait()
        self._entering[session] = trio.Event()
        try:
            async with self._attending.beginning(session, command, channel) as begin:
                await self._join(session, command, channel, begin, answer)
        finally:
            self._entering.pop(session).set()

    async def _join(self, session: Session, command: Envelope, channel: str, begin: Begin, answer: Answer) -> None:
        start = start_of(command)
        if is_pattern(channel) and not isinstance(start, Live):
            raise MessageError(ErrorCode.BAD_MESSAGE, f"{channel} has no start position: a pattern is live")
        subscriptions = session.subscriptions or {}
        known = subscriptions.get(channel)
        if known is not None and isinstance(start, Live) and channel not in (session.unasked or ()):
            begin(known)
            answer(Envelope(MessageType.OK, channel=channel))
            return
        if known is None and len(subscriptions) >= self._max_subscriptions:
            self._hits.hit(Limit.SUBSCRIPTIONS)
            limit = f"a connection may subscribe to {self._max_subscriptions} channels at most"
            raise MessageError(ErrorCode.LIMIT_EXCEEDED, limit)
        subscription = known or self._attending.subscription(session, channel)

        def admit(reply: Envelope) -> None:
            # In one step with the answer: a session that is cut off during its history is taken up with this channel.
            subscriptions[channel] = subscription
            session.subscriptions = subscriptions
            if session.unasked is not None:
                session.unasked.discard(channel)
            self._audit.record(AuditEvent.SUBSCRIBED, session.identity, channel=channel)
            session.events.say(ChannelSubscribed, session, channel=channel)
            session.store()
            begin(subscription)
            answer(reply)

        await self._joining.join(subscription, start, admit)

    def unsub(self, session: Session, command: Envelope) -> Envelope:
        channel = command_channel(command, or_pattern=True)
        if not session.unsubscribe(channel):
            raise MessageError(ErrorCode.NOT_SUBSCRIBED, f"not subscribed to {channel}")
        return Envelope(MessageType.OK, channel=channel)

    async def resume(self, session: Session, wanted: str, positions: Mapping[str, tuple[int, str]]) -> bool:
        """Subscribe to what another connection had; each channel's answer and history come first. The session keeps its
        own id: the other connection, if its worker does not know yet that it is dead, may still store its session.
        """
        stored = await self._store.find(wanted)
        if stored is None or stored.user != session.identity.user:
            return False
        for channel in stored.channels:
            offset, epoch = positions.get(channel, (None, None))
            command = Envelope(MessageType.SUB, channel=channel, offset=offset, epoch=epoch)
            try:
                await self.subscribe(session, command, session.push)
            except (MessageError, BusError) as error:
                session.push(refusal(command, error))
        return True


def end_removed(session: Session, removal: Removal, channel: str) -> None:
    """End a subscription, to `channel`, of a user who has been removed from it."""
    reason = removal.reason or f"you have been removed from {removal.channel}"
    session.end_subscription(channel, ErrorCode.PERMISSION_DENIED, reason)
