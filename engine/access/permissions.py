"""Whether a session may do what it asks for: one seam for all commands."""

from fanline.engine.access.application.authorizers import Authorizers
from fanline.engine.access.identity import Identity
from fanline.engine.namespaces import Namespaces, Publishers
from fanline.protocol.auth.rights import Right, right_names
from fanline.protocol.channels import is_pattern, namespace_of
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.nats.names import MONITOR_NAMESPACE


class Permissions:
    """What the namespace allows, then what its authorizer says, or, without one, the identity's grants. `closed`:
    whether a namespace that is not configured is closed.
    """

    def __init__(self, namespaces: Namespaces, authorizers: Authorizers, *, closed: bool) -> None:
        self._namespaces = namespaces
        self._authorizers = authorizers
        self._closed = closed

    async def check(self, identity: Identity, right: Right, channel: str) -> None:
        """MessageError if the identity may not do this on the channel: PERMISSION_DENIED, or UNAVAILABLE if that cannot
        be found out now.
        """
        error = self._ruled_out(identity, right, channel) or self._not_granted(identity, right, channel)
        if error is not None:
            raise error
        await self._authorizers.check(identity, right, channel)

    def _ruled_out(self, identity: Identity, right: Right, channel: str) -> MessageError | None:
        """Why the identity may not do this on the channel, whatever it is granted; None if it may be granted."""
        if namespace_of(channel) == MONITOR_NAMESPACE and not identity.operator:
            return _denied(f"{channel} is for operators")
        if right is Right.PUB and self._namespaces.of(channel).publish is Publishers.BACKEND:
            return _denied(f"only the backend publishes to {channel} (namespace {namespace_of(channel)})")
        if is_pattern(channel) and (self._namespaces.of(channel).inbox or namespace_of(channel) == "user"):
            return _denied(f"{channel} cannot be subscribed to: each channel of this namespace belongs to one user")
        if self._closed and not self._namespaces.is_declared(channel):
            return _denied(_NOT_DECLARED.format(namespace_of(channel)))
        return None

    def _not_granted(self, identity: Identity, right: Right, channel: str) -> MessageError | None:
        if self._authorizers.decide(channel) or right in identity.grants.on(channel):
            return None
        return _denied(f"you have no right to {right_names(right)[0]} on {channel}")


_NOT_DECLARED = "the namespace {0} is not configured on this server: its settings have no [namespaces.{0}]"


def _denied(text: str) -> MessageError:
    return MessageError(ErrorCode.PERMISSION_DENIED, text)
