"""What a token says, once its signature is verified: a typed reading of its claims.

Source: RFC 7519 (JSON Web Token) section 4.1 for the registered claims; the others are ours
(docs/reference/authentication.md).
"""

from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fanline.protocol.auth.rights import MAX_GRANTS, Grant, GrantError, make_grant
from fanline.protocol.text import NAME_PATTERN, explain

MAX_USER_LENGTH = 128
MAX_ROLES = 32
MIN_SECRET_BYTES = 32
"""Of a secret for HMAC with SHA-256: as long as the hash (RFC 7518 section 3.2)."""

Name = Annotated[str, Meta(min_length=1, max_length=MAX_USER_LENGTH, pattern=NAME_PATTERN)]
_Time = Annotated[float, Meta(ge=0, le=1e12)]


class TokenError(Exception):
    """A token that is refused; str() is a sentence that may be shown to the client: it holds nothing of the token."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims that the server reads; unknown ones are ignored. Times are Unix seconds."""

    exp: _Time
    """Required: a token that never ends cannot be taken back by waiting."""
    nbf: _Time = 0.0
    iat: _Time | None = None
    sub: Name | None = None
    """The user; None for a viewer who has only what `channels` grants, as with a share link."""
    jti: Name | None = None
    """The token's id, by which it can be revoked."""
    roles: Annotated[tuple[Name, ...], Meta(max_length=MAX_ROLES)] = ()
    channels: Annotated[dict[str, tuple[str, ...]], Meta(max_length=MAX_GRANTS)] = {}
    """Pattern -> names of rights, as in {"task:*": ["sub", "call"]}."""
    username: Name | None = None
    """How the user is shown to others."""
    organization_id: Name | None = None
    """To whom the user belongs: the management API shows it."""
    aud: str | tuple[str, ...] = ()
    """Whom the token is for."""
    iss: str | None = None
    """Who has issued it."""
    connections: Annotated[int, Meta(ge=1)] | None = None
    """The most connections that this user may have at a time."""

    def grants(self) -> list[Grant]:
        """What `channels` grants. Raises TokenError."""
        try:
            return [make_grant(pattern, names) for pattern, names in self.channels.items()]
        except GrantError as error:
            raise TokenError(f"claim channels: {error}") from None


_decoder = msgspec.json.Decoder(Claims)


def read_claims(values: Mapping[str, Any]) -> Claims:
    """Raises TokenError naming the claim that is missing or has another type."""
    return decode_claims(msgspec.json.encode(values))


def decode_claims(payload: bytes) -> Claims:
    """The same of claims in JSON."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TokenError(f"the token's claims: {explain(error)}") from None


def payload_of(token: str) -> dict[str, Any]:
    """All that a verified token says, its application's own claims too."""
    part = token.split(".")[1]
    payload: dict[str, Any] = msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return payload


def check_meant(claims: Claims, audience: str | None, issuer: str | None) -> None:
    """Raises TokenError if a token is not for this audience, or not from this issuer; None: any will do."""
    if audience is not None and audience not in ((claims.aud,) if isinstance(claims.aud, str) else claims.aud):
        raise TokenError("the token is for another audience" if claims.aud else "the token has no claim aud")
    if issuer is not None and claims.iss != issuer:
        raise TokenError("the token is from another issuer" if claims.iss else "the token has no claim iss")


def check_times(claims: Claims, now: float, leeway: float) -> None:
    """Raises TokenError if the token is not valid at `now` (Unix seconds), with `leeway` seconds for clocks that differ
    (RFC 7519 sections 4.1.4 and 4.1.5).
    """
    if now >= claims.exp + leeway:
        raise TokenError("the token has expired")
    if now < claims.nbf - leeway:
        raise TokenError("the token is not valid yet")
    if claims.iat is not None and now < claims.iat - leeway:
        raise TokenError("the token was issued in the future")
