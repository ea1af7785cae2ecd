"""Whether a session may do what it asks for: one seam for all commands."""

from fanline.engine.access.identity import Identity
from fanline.engine.namespaces import Namespaces, Publishers
from fanline.protocol.auth.rights import Right, right_names
from fanline.protocol.channels import is_pattern, namespace_of
from fanline.protocol.errors import ErrorCode, MessageError


class Permissions:
    """What the namespace allows, then what the identity's grants say. `closed`: whether a namespace that nobody
    configured is closed.
    """

    def __init__(self, namespaces: Namespaces, *, closed: bool) -> None:
        self._namespaces = namespaces
        self._closed = closed

    async def check(self, identity: Identity, right: Right, channel: str) -> None:
        """MessageError(PERMISSION_DENIED) if the identity may not do this on the channel."""
        error = self.denial(identity, right, channel)
        if error is not None:
            raise error

    def denial(self, identity: Identity, right: Right, channel: str) -> MessageError | None:
        """Why the identity may not do this on the channel; None if it may."""
        if right is Right.PUB and self._namespaces.of(channel).publish is Publishers.BACKEND:
            return _denied(f"only the backend publishes to {channel} (namespace {namespace_of(channel)})")
        if is_pattern(channel) and (self._namespaces.of(channel).inbox or namespace_of(channel) == "user"):
            return _denied(f"{channel} is nobody's: a channel of this namespace belongs to one user")
        if self._closed and not self._namespaces.is_declared(channel):
            return _denied(f"the namespace {namespace_of(channel)} is not configured on this server")
        if right not in identity.grants.on(channel):
            return _denied(f"you have no right to {right_names(right)[0]} on {channel}")
        return None


def _denied(text: str) -> MessageError:
    return MessageError(ErrorCode.PERMISSION_DENIED, text)
