"""Who gets in by a route: the client's token, what it may join, and its place among the connections of its user."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from fanline.engine.access.access import Access
from fanline.engine.access.application.authenticator import question_of, remembered
from fanline.engine.access.identity import NOBODY, AccessError, Identity
from fanline.engine.access.keys.key_holders import KeyHolders
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.routes import ServedRoute
from fanline.engine.access.settings import AuthMode
from fanline.engine.access.user_places import Place, UserPlaces
from fanline.engine.bus.errors import BusError
from fanline.engine.routes import Serves
from fanline.protocol.auth.request_token import token_of
from fanline.protocol.auth.rights import Grants, Right
from fanline.protocol.channels import is_pattern, namespace_of
from fanline.protocol.errors import ErrorCode, HttpError, MessageError
from fanline.protocol.handlers import AuthenticateRequest
from fanline.protocol.websocket.handshake import Request
from fanline.protocol.websocket.routes import Visit

LATER = (("Retry-After", "5"),)
KnowsTask = Callable[[str], Awaitable[bool]]
"""Whether the task was ever known; True for a channel that is not a task. BusError."""
_VISITOR = Identity(grants=Grants())
"""A client of a route that serves no channels."""
_NOT_IN_QUOTES = re.compile(r"[^\x20-\x7e]|[\"\\]")


class Admission(NamedTuple):
    """Who the client is, and whether it gets in."""

    identity: Identity
    place: Place | None = None
    """The connection's among those of its user, if they are limited."""
    request: AuthenticateRequest | None = None
    """For the authenticator, if there is one, when the client shows another token."""
    credential: str | None = None
    """What the client has presented, on a route that manages the server."""
    refusal: MessageError | None = None
    """Why the client does not get in after all; browsers would show their page no other answer to the handshake."""


class Admissions:
    """Decides for one worker."""

    def __init__(
        self,
        access: Access,
        permissions: Permissions,
        places: UserPlaces,
        knows_task: KnowsTask,
        key_holders: KeyHolders,
    ) -> None:
        self._access = access
        self._key_holders = key_holders
        self._permissions = permissions
        self._places = places
        self._knows_task = knows_task

    async def admit(
        self, request: Request, route: ServedRoute, visit: Visit, address: Callable[[], str], *, is_plain: bool
    ) -> Admission:
        """Who the client is. HttpError for a client of the plain dialect that is refused; others get an error once
        they are connected. `address`: says that of the client.
        """
        if route.options.serves is not Serves.CHANNELS:
            return Admission(_VISITOR)
        token = self._shown(request, route)
        question = None if self._access.authenticator is None else question_of(request, address())
        try:
            identity = await self._identify(token, route, question, is_plain=is_plain)
            if identity.known:
                channels = route.channels(visit, identity.user, is_plain=is_plain)
                await self._check_joins(identity, channels)
                if route.options.must_exist:
                    await self._check_known(channels)
                self._access.check_revoked(identity)  # no revocation finds it while it waits for what it may join
            kept = remembered(question) if identity.known else question
            credential = token if route.options.manages else None
            return Admission(identity, await self._places.take(identity, route.place_rule(identity)), kept, credential)
        except MessageError as error:
            if not is_plain and error.code is not ErrorCode.BAD_CHANNEL:  # which is a matter of the path
                return Admission(NOBODY, refusal=error)
            raise _http_error(error, has_token=token is not None) from None

    def _shown(self, request: Request, route: ServedRoute) -> str | None:
        """The client's token; at a route that manages the server it may be a key."""
        key = request.headers.get("x-api-key") if route.options.manages else None
        return key or token_of(request, self._access.tokens.cookie)

    async def _identify(
        self, token: str | None, route: ServedRoute, question: AuthenticateRequest | None, *, is_plain: bool
    ) -> Identity:
        """Who the client is. MessageError."""
        manages = route.options.manages
        if manages and (holder := await self._key_holders.identify(token)) is not None:
            return holder
        identity = await self._access.admit(token, may_follow=not is_plain, anonymous=route.anonymous, request=question)
        if manages and token is None and identity.known and not identity.operator:
            raise AccessError("authentication required: show the token of an admin, or a key of the management API")
        return identity

    @property
    def mode(self) -> AuthMode:
        """Who gets in to the server."""
        return self._access.mode

    def take_back(self, admission: Admission) -> None:
        """The client that was admitted has gone before it was connected."""
        self._places.give_back(admission.place)

    async def _check_joins(self, identity: Identity, channels: Sequence[str]) -> None:
        """MessageError(PERMISSION_DENIED) if the client may not have what the route joins."""
        for channel in channels:
            try:
                await self._permissions.check(identity, Right.SUB, channel)
            except MessageError as error:
                if error.code is not ErrorCode.PERMISSION_DENIED:
                    raise
                raise MessageError(error.code, f"{namespace_of(channel).capitalize()} access denied") from None

    async def _check_known(self, channels: Sequence[str]) -> None:
        """MessageError(UNKNOWN_TASK) if one of them is a task that was never known."""
        for channel in channels:
            if is_pattern(channel):
                continue
            try:
                known = await self._knows_task(channel)
            except BusError as error:
                raise MessageError(ErrorCode.UNAVAILABLE, str(error)) from None
            if not known:
                raise MessageError(ErrorCode.UNKNOWN_TASK, f"nothing was ever heard of {channel}")


def _http_error(error: MessageError, *, has_token: bool) -> HttpError:
    """The refusal of a handshake, in the words that plain clients know."""
    match error.code:
        case ErrorCode.PERMISSION_DENIED:
            return HttpError(403, str(error))
        case ErrorCode.UNKNOWN_TASK:
            return HttpError(404, str(error))
        case ErrorCode.LIMIT_EXCEEDED:
            return HttpError(429, str(error), LATER)
        case ErrorCode.UNAVAILABLE:
            return HttpError(503, str(error), LATER)
        case ErrorCode.BAD_CHANNEL:
            return HttpError(400, str(error))
    # RFC 6750 section 3: the reason goes into the header, and only if there was a token
    if not has_token:
        return HttpError(401, "Authentication required", (("WWW-Authenticate", "Bearer"),))
    reason = _NOT_IN_QUOTES.sub("'", str(error))
    return HttpError(
        401, "Invalid token", (("WWW-Authenticate", f'Bearer error="invalid_token", error_description="{reason}"'),)
    )
