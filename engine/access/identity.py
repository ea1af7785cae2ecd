"""Who a connection is, and what it may do."""

import math

import msgspec

from fanline.protocol.auth.rights import EVERY_RIGHT, Grant, Grants
from fanline.protocol.errors import ErrorCode, MessageError


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a client. Times are Unix seconds."""

    user: str | None = None
    """None for a client without a user name."""
    username: str | None = None
    """How others see the user."""
    organization_id: str | None = None
    """For operators: what the client may do does not depend on it."""
    roles: tuple[str, ...] = ()
    """For an authorizer; what they grant is in `grants`."""
    grants: Grants
    operator: bool = False
    """Whether it may manage the server: an admin, the holder of an API key, and in development mode any client."""
    known: bool = True
    """False: it has shown nothing yet, and may only authenticate itself, until `expires`."""
    expires: float = math.inf
    connections: int | None = None
    """The most connections that the user may have in the whole cluster; None: as the route or the settings say."""
    token_id: str | None = None
    issued: float | None = None
    """When its token was issued, or an authenticator said who it is; None for a client that nothing is known of, and
    for a token that does not say so.
    """


EVERYBODY = Identity(grants=Grants([Grant("*", EVERY_RIGHT)]))
"""Any client, where everything is allowed."""

DEVELOPER = msgspec.structs.replace(EVERYBODY, operator=True)
"""Any client, in development mode."""

NOBODY = Identity(grants=Grants(), known=False)
"""A client that is not let in."""


class AccessError(MessageError):
    """A client is not let in; the sentence may be shown to it. The code is UNAUTHENTICATED, UNAVAILABLE or
    LIMIT_EXCEEDED.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.UNAUTHENTICATED) -> None:
        super().__init__(code, message)
