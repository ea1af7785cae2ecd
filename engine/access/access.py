"""How clients get in: without a token, with one that is verified, or not at all."""

import time
from collections.abc import Callable
from typing import NoReturn, Protocol

from fanline.engine.access.identity import EVERYBODY, AccessError, Identity
from fanline.engine.access.rules import AccessRules
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.protocol.auth.claims import Claims, TokenError
from fanline.protocol.auth.rights import Grants


class Verifier(Protocol):
    """Verifies tokens; see verifier.py, which is loaded only where there are keys: PyJWT takes 10 MB of a worker."""

    async def verify(self, token: str, now: float) -> Claims:
        """The claims of a token that is valid `now` (Unix seconds). TokenError, AccessError."""
        ...

    async def run(self) -> NoReturn:
        """Keep the keys fresh."""
        ...


class Access:
    """Who gets in to one worker. Without a verifier tokens are ignored. `clock`: Unix seconds.

    Raises GrantError for rights that cannot be read.
    """

    def __init__(
        self,
        mode: AuthMode = AuthMode.DEVELOPMENT,
        tokens: TokenSettings | None = None,
        access: AccessSettings | None = None,
        verifier: Verifier | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.mode = mode
        self.tokens = tokens or TokenSettings()
        self.verifier = verifier
        self.is_revoked: Callable[[Identity], bool] = lambda identity: False
        self.settings = access or AccessSettings()
        self._rules = AccessRules(self.settings)
        self._clock = clock

    @property
    def closed(self) -> bool:
        """Whether a namespace that nobody configured is closed."""
        return self.mode is AuthMode.TOKEN

    async def admit(self, token: str | None, *, may_follow: bool, anonymous: Grants | None = None) -> Identity:
        """The identity behind a handshake. `may_follow`: a client that brings no token may still send one, in time.
        `anonymous`: the rights of clients without a token, if they are not those of the whole server.

        AccessError.
        """
        if token is None and anonymous is not None and self.mode is AuthMode.TOKEN:
            return Identity(grants=anonymous)
        if token is not None or self.mode is not AuthMode.TOKEN or self._rules.anonymous is not None:
            return await self.identify(token)
        if may_follow:
            return Identity(grants=Grants(), known=False, expires=self._clock() + self.tokens.timeout)
        raise AccessError("authentication required: connect with a token")

    async def identify(self, token: str | None) -> Identity:
        """Whom a token names; without one, what anybody may do. AccessError."""
        if token is None or self.verifier is None:
            return self._anybody()
        try:
            identity = self._rules.identity(await self.verifier.verify(token, self._clock()))
        except TokenError as error:
            raise AccessError(str(error)) from None
        self.check_revoked(identity)
        return identity

    def check_revoked(self, identity: Identity) -> None:
        """AccessError if the identity's token was taken back. To be asked again after each wait before the connection
        has the identity: until then a revocation does not find it.
        """
        if self.is_revoked(identity):
            raise AccessError("the token has been revoked")

    def _anybody(self) -> Identity:
        if self.mode is not AuthMode.TOKEN:
            return EVERYBODY
        if self._rules.anonymous is None:
            raise AccessError("authentication required: `auth` needs a token")
        return Identity(grants=self._rules.anonymous)
