"""Whether a session may do what it asks for: one seam for all commands."""

from fanline.engine.namespaces import Namespaces, Publishers
from fanline.engine.sessions.identity import Access, Action, Identity
from fanline.protocol.channels import namespace_of
from fanline.protocol.errors import ErrorCode, MessageError


class Permissions:
    """What the namespace allows, then what the access decides for the identity."""

    def __init__(self, access: Access, namespaces: Namespaces) -> None:
        self._access = access
        self._namespaces = namespaces

    async def check(self, identity: Identity, action: Action, channel: str) -> None:
        """MessageError(PERMISSION_DENIED) if the identity may not do this on the channel."""
        if action is Action.PUBLISH and self._namespaces.of(channel).publish is Publishers.BACKEND:
            text = f"only the backend publishes to {channel} (namespace {namespace_of(channel)})"
            raise MessageError(ErrorCode.PERMISSION_DENIED, text)
        if not await self._access.may(identity, action, channel):
            text = f"you may not {action} to {channel} (namespace {namespace_of(channel)})"
            raise MessageError(ErrorCode.PERMISSION_DENIED, text)
