"""The settings of authentication: the mode, the tokens that are accepted, and the rights of all clients."""

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.auth.rights import GrantText

_Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class AuthMode(StrEnum):
    """Who gets in."""

    DEVELOPMENT = "development"  # all clients on this machine, with every right; tokens count only with keys
    TOKEN = "token"  # clients that present a token, with the rights that it grants
    OPEN = "open"  # all clients from everywhere, with every right


class TokenSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which tokens are accepted."""

    secret: str = ""
    """A shared secret of at least 32 bytes, for HS256, HS384 and HS512."""
    public_key: str = ""
    """Path of a public key or certificate, PEM, for RS, PS, ES or EdDSA."""
    jwks_url: str = ""
    """URL of a JSON Web Key Set."""
    audience: str = ""
    """What a token's `aud` must name; empty: it is not asked for."""
    issuer: str = ""
    """What a token's `iss` must be; empty: it is not asked for."""
    leeway: Annotated[float, Meta(ge=0, le=300)] = 10.0
    """Seconds by which clocks may differ."""
    cookie: str = ""
    """Name of a cookie that may hold the token; empty: none is read."""
    timeout: Annotated[float, Meta(ge=1, le=60)] = 10.0
    """Seconds that a client without a token has for its `auth`."""
    grace: _Seconds = 30.0
    """Seconds after the end of its token for which a client may still show a new one."""

    @property
    def given(self) -> bool:
        """Whether there is anything to verify a token with."""
        return bool(self.secret or self.public_key or self.jwks_url)


class HandlerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the application's own code is asked."""

    timeout: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    """Seconds that a handler has for an answer, with all retries; then the client is refused."""
    retries: Annotated[int, Meta(ge=0, le=10)] = 1
    """How often a webhook is asked again that cannot be reached or answers with 5xx."""
    cache: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """Seconds for which a worker remembers what an authorizer has allowed, unless the answer says otherwise."""


class AccessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rights that no token has to name, and who else is asked."""

    authenticator: str = ""
    """The handler that says who a client is; empty: tokens alone do."""
    room_authorizer: str = ""
    """The handler that alone decides about rights on rooms, the channels of `project` and `session`, unless the
    namespace has one of its own; empty: none does.
    """
    everyone: tuple[GrantText, ...] = ()
    """Of each user with a token."""
    anonymous: tuple[GrantText, ...] = ()
    """Of clients without a token; empty: they do not get in."""
    connections: Annotated[int, Meta(ge=0)] = 0
    """The most connections of one user in the whole cluster, unless its token says otherwise; 0: any number."""
    roles: dict[str, tuple[GrantText, ...]] = {}
    """Role -> the rights of those who have it, in addition to `admin` and `super_admin` or in their place."""
