"""Who gets in by a route: the client's token, what it may join, and its place among the connections of its user."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from fanline.engine.access.access import Access
from fanline.engine.access.authenticator import question_of, remembered
from fanline.engine.access.identity import NOBODY, Identity
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.routes import ServedRoute
from fanline.engine.access.settings import AuthMode
from fanline.engine.access.user_places import Place, UserPlaces
from fanline.engine.bus.interface import BusError
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
"""Whether anything was ever heard of a task; True for a channel that is none. BusError."""
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
    refusal: MessageError | None = None
    """Why the client does not get in after all; browsers would show their page no other answer to the handshake."""


class Admissions:
    """Decides for one worker."""

    def __init__(self, access: Access, permissions: Permissions, places: UserPlaces, knows_task: KnowsTask) -> None:
        self._access = access
        self._permissions = permissions
        self._places = places
        self._knows_task = knows_task

    async def admit(
        self, request: Request, route: ServedRoute, visit: Visit, address: Callable[[], str], *, is_plain: bool
    ) -> Admission:
        """Who the client is. HttpError for one of the plain dialect that does not get in; others are told once they
        are connected. `address`: says that of the client.
        """
        if route.options.serves is not Serves.CHANNELS:
            return Admission(_VISITOR)
        token = token_of(request, self._access.tokens.cookie)
        question = None if self._access.authenticator is None else question_of(request, address())
        try:
            identity = await self._access.admit(
                token, may_follow=not is_plain, anonymous=route.anonymous, request=question
            )
            if identity.known:
                channels = route.channels(visit, identity.user, is_plain=is_plain)
                await self._check_joins(identity, channels)
                if route.options.must_exist:
                    await self._check_known(channels)
                self._access.check_revoked(identity)  # no revocation finds it while it waits for what it may join
            kept = remembered(question) if identity.known else question
            return Admission(identity, await self._places.take(identity, route.place_rule(identity)), kept)
        except MessageError as error:
            if not is_plain and error.code is not ErrorCode.BAD_CHANNEL:  # which is a matter of the path
                return Admission(NOBODY, refusal=error)
            raise _http_error(error, has_token=token is not None) from None

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
        """MessageError(UNKNOWN_TASK) if one of them is a task of which nothing was ever heard."""
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
