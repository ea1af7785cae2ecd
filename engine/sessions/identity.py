"""Who may do what: the seam where authentication and authorizers plug in."""

from enum import StrEnum
from typing import NamedTuple, Protocol

from fanline.protocol.websocket.handshake import Request


class Action(StrEnum):
    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    CALL = "call"


class Identity(NamedTuple):
    """Who a connection is; `user` is None for nobody in particular."""

    user: str | None = None


class Access(Protocol):
    async def identify(self, request: Request) -> Identity:
        """The identity behind a handshake; raises HttpError to refuse it."""
        ...

    async def may(self, identity: Identity, action: Action, channel: str) -> bool:
        """Whether this identity may do this on this channel."""
        ...


class DevelopmentAccess:
    """Everybody may do everything: only for loopback without authentication, and the ready line says so."""

    async def identify(self, request: Request) -> Identity:
        return Identity()

    async def may(self, identity: Identity, action: Action, channel: str) -> bool:
        return True
