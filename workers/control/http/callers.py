"""Who calls the management API, and what the caller may do."""

import json
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fastapi import Request

from fanline.engine.access.access import Access
from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.identity import AccessError
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.access.settings import AuthMode
from fanline.protocol.auth.api_keys import ApiRight, may, read_key
from fanline.protocol.errors import ErrorCode
from fanline.protocol.handlers import AuthenticateRequest
from fanline.workers.control.http.forwarded import CALLER, OWNER
from fanline.workers.control.http.problems import ApiError, unavailable

EVERYTHING = frozenset((ApiRight.ADMIN,))
_NAMED = ("user_id", "connection_id", "channel", "token_id", "everyone")
_MAX_NAMED = 300  # characters
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_ADVICE = "Send `Authorization: Bearer KEY`, with a key of `fanline apikey create` or the token of an admin."


class Caller(NamedTuple):
    """Who calls."""

    name: str
    """The caller's name for logs, and for viewers of what the caller has done."""
    rights: frozenset[ApiRight]
    is_proven: bool = False
    """Whether a key or a token proves it."""


class Callers:
    """Of one server."""

    def __init__(self, keys: ApiKeys, access: Access) -> None:
        self._keys = keys
        self._access = access

    async def identify(self, request: Request) -> Caller:
        """Raises ApiError 401, 403, 503; BusError."""
        shown = _shown(request)
        if shown is None:
            if request.scope.get(OWNER):
                return Caller("the operator", EVERYTHING)
            if self._access.mode is AuthMode.DEVELOPMENT:
                return Caller("development mode", EVERYTHING)
            raise ApiError(401, "unauthenticated", "a key is needed", advice=_ADVICE, headers=_CHALLENGE)
        key = read_key(shown)
        if key is None:
            return await self._admin(shown)
        found = await self._keys.find(key)
        if found is None:
            message = "this key is unknown, was revoked, or has expired"
            raise ApiError(401, "unauthenticated", message, advice=_ADVICE, headers=_CHALLENGE)
        return Caller(f"key {found.name}", frozenset(found.rights), is_proven=True)

    async def _admin(self, token: str) -> Caller:
        try:
            identity = await self._access.identify(token, AuthenticateRequest(token=token))
        except AccessError as error:
            if error.code is not ErrorCode.UNAUTHENTICATED:
                raise unavailable(str(error)) from None
            raise ApiError(401, "unauthenticated", str(error), advice=_ADVICE, headers=_CHALLENGE) from None
        if identity.operator:
            is_proven = self._access.mode is not AuthMode.DEVELOPMENT
            return Caller(identity.user or "an admin", EVERYTHING, is_proven)
        message = "this is not an admin's token"
        raise ApiError(403, "forbidden", message, advice="Use a token with the role admin or super_admin, or a key.")


def needing(right: ApiRight) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency: the caller, who has this right. ApiError 403."""

    async def caller(request: Request) -> Caller:
        callers: Callers = request.app.state.callers
        found = await callers.identify(request)
        if found.is_proven:
            request.scope[CALLER].append(found.name)
        if not may(found.rights, right):
            message = f"this call needs a key with the right `{right}`"
            raise ApiError(403, "forbidden", message, advice="Make one with `fanline apikey create`.")
        return found

    return caller


def acting(right: ApiRight) -> Callable[[Request], Awaitable[Caller]]:
    """The same for calls that change something, which are noted in the audit log."""
    check = needing(right)

    async def caller(request: Request) -> Caller:
        found = await check(request)
        audit: Audit = request.app.state.audit
        if audit.enabled:
            verb, named = request.scope["route"].name, _named(await request.body())
            audit.record(AuditEvent.MANAGED, None, caller=found.name, verb=verb, what=request.url.path, **named)
        return found

    return caller


def _named(body: bytes) -> dict[str, str]:
    """The user or thing that the body of a call names, if it can be read."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    known = said if isinstance(said, dict) else {}
    return {name: str(known[name])[:_MAX_NAMED] for name in _NAMED if known.get(name)}


def _shown(request: Request) -> str | None:
    """The key or token of a request. None if it has none."""
    if key := request.headers.get("x-api-key"):
        return key
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None
