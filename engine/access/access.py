"""How clients get in: without a token, with one that is verified, by the word of an authenticator, or not at all."""

import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from fanline.engine.access.application.authenticator import Authenticator
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.identity import DEVELOPER, EVERYBODY, AccessError, Identity
from fanline.engine.access.rules import AccessRules
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.protocol.auth.claims import Claims, TokenError
from fanline.protocol.auth.rights import Grants
from fanline.protocol.errors import ErrorCode
from fanline.protocol.handlers import AuthenticateRequest, parse_handler


class Verifier(Protocol):
    """Verifies tokens; see verifier.py, which is loaded only where there are keys: PyJWT takes 10 MB of a worker."""

    async def verify(self, token: str, now: float) -> Claims:
        """The claims of a token that is valid `now` (Unix seconds). TokenError, AccessError."""
        ...

    async def run(self) -> NoReturn:
        """Keep the keys fresh."""
        ...


class Access:
    """Who gets in to one worker. Without a verifier and an authenticator tokens are ignored. `handlers`: needed for an
    authenticator. `clock`: Unix seconds.

    Raises GrantError for rights that cannot be read, HandlerNameError for an authenticator that cannot.
    """

    def __init__(
        self,
        mode: AuthMode = AuthMode.DEVELOPMENT,
        tokens: TokenSettings | None = None,
        access: AccessSettings | None = None,
        verifier: Verifier | None = None,
        handlers: HandlerClient | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.mode = mode
        self.tokens = tokens or TokenSettings()
        self.verifier = verifier
        self.handlers = handlers
        self.authenticator = _authenticator(access, handlers, clock)
        self.is_revoked: Callable[[Identity], bool] = lambda identity: False
        self.settings = access or AccessSettings()
        self._rules = AccessRules(self.settings)
        self._clock = clock

    @property
    def closed(self) -> bool:
        """Whether a namespace that is not configured is closed."""
        return self.mode is AuthMode.TOKEN

    async def admit(
        self,
        token: str | None,
        *,
        may_follow: bool,
        anonymous: Grants | None = None,
        request: AuthenticateRequest | None = None,
    ) -> Identity:
        """The identity behind a handshake. `may_follow`: a client without a token may still send one, in time.
        `anonymous`: the rights of clients without a token, if they are not those of the whole server. `request`: what
        an authenticator is asked, if there is one: it alone decides, and a client that it refuses is not anonymous.

        AccessError.
        """
        if token is None and anonymous is not None and self.authenticator is None and self.closed:
            return Identity(grants=anonymous)
        try:
            return await self.identify(token, request)
        except AccessError as error:
            if token is not None or error.code is not ErrorCode.UNAUTHENTICATED:
                raise
            if may_follow:
                return Identity(grants=Grants(), known=False, expires=self._clock() + self.tokens.timeout)
            raise

    async def identify(self, token: str | None, request: AuthenticateRequest | None = None) -> Identity:
        """The identity that a token or the authenticator gives a client; without both, that of an anonymous one.

        AccessError.
        """
        if token is None and self.authenticator is None:
            return self._anybody()
        claims = await self._verified(token)
        if self.authenticator is not None:
            claims = await self.authenticator.authenticate(request or AuthenticateRequest(), token, claims)
        if claims is None:
            return self._anybody()
        try:
            identity = self._rules.identity(claims)
        except TokenError as error:
            raise AccessError(str(error)) from None
        self.check_revoked(identity)
        return identity

    async def _verified(self, token: str | None) -> Claims | None:
        """The claims of a token; None if there is no token, or nothing to verify it with. AccessError."""
        if token is None or self.verifier is None:
            return None
        try:
            claims = await self.verifier.verify(token, self._clock())
        except TokenError as error:
            raise AccessError(str(error)) from None
        return claims

    def check_revoked(self, identity: Identity) -> None:
        """AccessError if the identity's token was taken back. To be asked again after each wait before the connection
        has the identity: until then a revocation does not find it.
        """
        if self.is_revoked(identity):
            raise AccessError("the token has been revoked")

    def _anybody(self) -> Identity:
        if self.mode is not AuthMode.TOKEN:
            return DEVELOPER if self.mode is AuthMode.DEVELOPMENT else EVERYBODY
        if self._rules.anonymous is None:
            raise AccessError("authentication required: show a token")
        return Identity(grants=self._rules.anonymous)


def _authenticator(
    access: AccessSettings | None, handlers: HandlerClient | None, clock: Callable[[], float]
) -> Authenticator | None:
    if access is None or not access.authenticator:
        return None
    if handlers is None:
        raise ValueError("an authenticator cannot be asked without a client of handlers")
    return Authenticator(handlers, parse_handler(access.authenticator), clock)
