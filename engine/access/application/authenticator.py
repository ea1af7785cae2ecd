"""The authenticator of the settings: the application's own code says who a client is."""

import time
from collections.abc import Callable
from urllib.parse import parse_qsl

import msgspec

from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.identity import AccessError
from fanline.protocol.auth.claims import Claims, payload_of
from fanline.protocol.errors import ErrorCode
from fanline.protocol.handlers import AuthenticateAnswer, AuthenticateRequest, ClientIdentity, Handler, HandlerError
from fanline.protocol.websocket.handshake import Request


class Authenticator:
    """`clock`: Unix seconds."""

    def __init__(self, handlers: HandlerClient, handler: Handler, clock: Callable[[], float] = time.time) -> None:
        self._handlers = handlers
        self._handler = handler
        self._clock = clock

    async def authenticate(self, request: AuthenticateRequest, token: str | None, claims: Claims | None) -> Claims:
        """The identity that it gives the client. `claims`: those of the token, if it was verified.

        AccessError: UNAUTHENTICATED if it refuses the client, UNAVAILABLE if it does not answer as it should.
        """
        said = payload_of(token) if token is not None and claims is not None else None
        question = msgspec.structs.replace(request, token=token, claims=said)
        try:
            answer = await self._handlers.ask(self._handler, question, AuthenticateAnswer)
        except HandlerError:
            raise AccessError("clients cannot be authenticated now; try again later", ErrorCode.UNAVAILABLE) from None
        if not answer.allow or answer.identity is None:
            raise AccessError(answer.reason or "authentication required")
        return _as_claims(answer.identity, claims, self._clock())


def _as_claims(identity: ClientIdentity, claims: Claims | None, now: float) -> Claims:
    """The identity as if a token said so. It ends with the client's token and is taken back with it; without one, it is
    as if a token had been issued just now.
    """
    ends = [each for each in (identity.expires, None if claims is None else claims.exp) if each is not None]
    return Claims(
        exp=min(ends, default=float("inf")),
        iat=now if claims is None else claims.iat,
        sub=identity.user,
        jti=None if claims is None else claims.jti,
        roles=identity.roles,
        channels=dict(identity.channels),
        username=identity.username,
        organization_id=identity.organization_id,
        connections=identity.connections,
    )


def remembered(request: AuthenticateRequest | None) -> AuthenticateRequest | None:
    """The part that a live connection keeps: not the headers, which are large and full of secrets."""
    return None if request is None else msgspec.structs.replace(request, headers={}, query={})


def question_of(request: Request, address: str) -> AuthenticateRequest:
    """What an authenticator is asked about a handshake, without the token."""
    return AuthenticateRequest(
        headers=request.headers,
        path=request.path,
        query=dict(parse_qsl(request.query, keep_blank_values=True)),
        address=address,
    )
