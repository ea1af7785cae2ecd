"""Who a session is: its identity is replaced in place, and what the new one may not have ends."""

import msgspec
import trio

from fanline.engine.access.access import Access
from fanline.engine.access.application.authenticator import remembered
from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.identity import Identity
from fanline.engine.access.keys.key_holders import KeyHolders
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.settings import AuthMode
from fanline.engine.access.user_places import UserPlaces
from fanline.engine.bus.parallel import for_each
from fanline.engine.sessions.attending import Attending
from fanline.engine.sessions.identity.expiry import Expiry
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.names import Introduction, introduction_of
from fanline.protocol.auth.rights import Right
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.handlers import AuthenticateRequest
from fanline.protocol.hooks.events import UserConnected

_CONFIRM_SECONDS = 15.0  # for all channels of a connection whose client shows another token


class Identification:
    """For all sessions of one worker."""

    def __init__(
        self,
        access: Access,
        places: UserPlaces,
        permissions: Permissions,
        attending: Attending,
        expiry: Expiry,
        audit: Audit,
        key_holders: KeyHolders,
    ) -> None:
        self._key_holders = key_holders
        self._access = access
        self._places = places
        self._permissions = permissions
        self._attending = attending
        self._expiry = expiry
        self._audit = audit

    async def authenticate(self, session: Session, token: str | None) -> None:
        """Whom a token names is the session from now on. MessageError."""
        manages = session.route.options.manages
        holder = await self._key_holders.identify(token) if manages else None
        identity = holder or await self._access.identify(token, session.request)
        if session.identity.user not in (None, identity.user):
            text = "this connection belongs to another user; open a new one with this token"
            raise MessageError(ErrorCode.PERMISSION_DENIED, text)
        await self._become(session, identity)
        session.credential = token if manages else None

    async def name(self, session: Session, command: PlainCommand) -> None:
        """Whom a `connect` names is the session from now on, if that can be believed. MessageError."""
        said = introduction_of(command)
        if session.identity.user is None:
            await self._become(session, await self._believed(session, said))
        elif said.user not in (None, session.identity.user):
            raise MessageError(ErrorCode.PERMISSION_DENIED, "this connection belongs to another user")

    async def _believed(self, session: Session, said: Introduction) -> Identity:
        """Who a client is that has said this: according to its token, or the authenticator. Without both, the
        client is believed only where all clients get in.
        """
        access = self._access
        if access.authenticator is not None or (said.token is not None and access.verifier is not None):
            request = session.request or AuthenticateRequest()
            request = msgspec.structs.replace(request, user=said.user, username=said.username)
            identity = await access.identify(said.token, request)
            if access.authenticator is None and said.user not in (None, identity.user):
                raise MessageError(ErrorCode.PERMISSION_DENIED, "this token belongs to another user")
            return identity
        if access.mode is AuthMode.TOKEN:
            raise MessageError(ErrorCode.UNAUTHENTICATED, "Authentication required")
        if said.user is None:
            raise MessageError(ErrorCode.BAD_MESSAGE, "User id required")
        return msgspec.structs.replace(session.identity, user=said.user, username=said.username)

    async def _become(self, session: Session, identity: Identity) -> None:
        await self._take_place(session, identity)
        session.request = remembered(session.request)
        self._expiry.watch(session)
        await self._end_lost(session)
        if session.subscriptions:
            session.store()  # as this user's: no client takes over another user's session
        await self._attending.identify(session)

    async def _take_place(self, session: Session, identity: Identity) -> None:
        if session.place is None:
            session.place = await self._places.take(identity, session.route.place_rule(identity))
            self._places.hold(session.place, session)
        is_new = session.identity.user is None and identity.user is not None
        session.become(identity)
        if is_new:
            session.events.say(UserConnected, session)
        self._audit.record(AuditEvent.AUTHENTICATED, identity)

    async def _end_lost(self, session: Session) -> None:
        """End the subscriptions that the session's identity may not have any more, each with its reason. What an
        authorizer has not confirmed in time is among them.
        """
        unconfirmed = dict.fromkeys(session.subscriptions or {})

        async def check(channel: str) -> None:
            try:
                await self._permissions.check(session.identity, Right.SUB, channel)
            except MessageError as error:
                session.end_subscription(channel, error.code, str(error))
            del unconfirmed[channel]

        with trio.move_on_after(_CONFIRM_SECONDS):
            await for_each(check, [*unconfirmed])
        for channel in unconfirmed:
            session.end_subscription(channel, ErrorCode.UNAVAILABLE, "rights cannot be checked now; subscribe again")
