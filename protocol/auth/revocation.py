"""What is revoked before it expires: a token, all tokens of a user or of all users, or a user's place on a channel.

It is in the bucket `fanline_revoked`, where every worker of the cluster reads it.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.auth.claims import Name
from fanline.protocol.channels import check_channel_or_pattern, is_pattern, namespace_of
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import name_key
from fanline.protocol.text import NAME_PATTERN

_Time = Annotated[float, Meta(ge=0, le=1e12)]


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """What is revoked. Times are Unix seconds."""

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


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A user's subscriptions to a channel end, and cached answers about the user's rights there are dropped. The rights
    themselves do not change: a user who still has them may subscribe again.

    A subscription to all channels of the namespace ends as well, since it includes the messages of this channel. A
    removal from `project:*` is a removal from every channel of the namespace.
    """

    user: Name
    channel: str
    reason: Annotated[str, Meta(max_length=500, pattern=NAME_PATTERN)] = ""
    """A sentence for the client."""

    def covers(self, channel: str) -> bool:
        """Whether a subscription to this channel or pattern ends."""
        if is_pattern(self.channel) or is_pattern(channel):
            return namespace_of(self.channel) == namespace_of(channel)
        return self.channel == channel


REMOVALS = "removal"
"""Keys of removals are `removal.ID`: each takes effect once, so each needs a new ID."""
REMOVAL_SECONDS = 600.0
"""For which a removal is kept, for workers that do not reach NATS for a while."""


def decode_removal(value: bytes) -> Removal:
    """Raises ValueError, which says what is wrong."""
    removal = msgspec.json.decode(value, type=Removal)
    try:
        check_channel_or_pattern(removal.channel)
    except MessageError as error:
        raise ValueError(str(error)) from None
    return removal


def encode_revocation(revocation: Revocation | Removal) -> bytes:
    """The value in the bucket, JSON."""
    return msgspec.json.encode(revocation)


def decode_revocation(value: bytes) -> Revocation:
    """The inverse of `encode_revocation`. Raises ValueError, which says what is wrong."""
    return msgspec.json.decode(value, type=Revocation)
