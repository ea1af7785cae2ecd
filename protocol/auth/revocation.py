"""Tokens that are taken back before they end: one of them, all of a user, or all there are.

Revocations stand in the bucket `fanline_revoked`, where every worker of the cluster reads them.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.auth.claims import Name
from fanline.protocol.nats.names import name_key

_Time = Annotated[float, Meta(ge=0, le=1e12)]


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """What is taken back. Times are Unix seconds."""

    token_id: Name | None = None
    """The token with this `jti`."""
    user: Name | None = None
    """All tokens of this user; without a user and a token id, all tokens."""
    before: _Time
    """Only tokens that were issued before this time; one without `iat` counts as issued before."""
    until: _Time
    """From then on all of these tokens have ended anyway."""

    def covers(self, user: str | None, token_id: str | None, issued: float | None) -> bool:
        """Whether a token is taken back."""
        if self.token_id is not None:
            return token_id == self.token_id
        if self.user is not None and user != self.user:
            return False
        return issued is None or issued < self.before

    @property
    def key(self) -> str:
        """Its key in the bucket."""
        if self.token_id is not None:
            return f"token.{name_key(self.token_id)}"
        return "all" if self.user is None else f"user.{name_key(self.user)}"


def encode_revocation(revocation: Revocation) -> bytes:
    """The value in the bucket, JSON."""
    return msgspec.json.encode(revocation)


def decode_revocation(value: bytes) -> Revocation:
    """The inverse of `encode_revocation`. Raises ValueError, which says what is wrong."""
    return msgspec.json.decode(value, type=Revocation)
