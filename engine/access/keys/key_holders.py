"""Clients that show a key of the management API in place of a token, at a route that manages the server."""

from fanline.engine.access.identity import AccessError, Identity
from fanline.engine.access.keys.api_keys import ApiKeys
from fanline.engine.bus.errors import BusError
from fanline.protocol.auth.api_keys import ApiRight, may, read_key
from fanline.protocol.auth.rights import Grant, Grants, Right
from fanline.protocol.channels import namespace_of
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.management.monitor import MONITOR, SYSTEM

_GRANTS = Grants(
    [Grant(f"{namespace_of(each)}:*", Right.SUB | Right.HISTORY | Right.CALL) for each in (MONITOR, SYSTEM)]
)


class KeyHolders:
    """`keys`: those of the cluster."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def identify(self, shown: str | None) -> Identity | None:
        """The holder of what was presented; None for a text that is not a key. MessageError: UNAUTHENTICATED for one
        that is not accepted, PERMISSION_DENIED for one without the right `read`, UNAVAILABLE.
        """
        read = None if shown is None else read_key(shown)
        if read is None:
            return None
        try:
            key = await self._keys.find(read)
        except BusError as error:
            raise AccessError(str(error), ErrorCode.UNAVAILABLE) from None
        if key is None:
            raise AccessError("this key is unknown, was revoked, or has expired")
        if not may(frozenset(key.rights), ApiRight.READ):
            raise MessageError(ErrorCode.PERMISSION_DENIED, "the monitor needs a key with the right `read`")
        expires = float("inf") if key.expires is None else key.expires
        return Identity(username=f"key {key.name}", grants=_GRANTS, operator=True, expires=expires)
