"""How a client without a token says who it is."""

from typing import Any

import msgspec

from fanline.engine.access.access import Access
from fanline.engine.access.identity import Identity
from fanline.engine.access.settings import AuthMode
from fanline.protocol.dialects.plain_commands import PlainCommand
from fanline.protocol.envelope import MAX_TEXT
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import is_name


def named(identity: Identity, command: PlainCommand, access: Access) -> Identity:
    """The identity of a client that has said `connect`. Where tokens count it is believed only what they say.
    MessageError.
    """
    user, username = command.data, command.said.get("username")
    if identity.user is not None and identity.user != user:
        raise MessageError(ErrorCode.PERMISSION_DENIED, "this connection belongs to another user")
    if identity.user is not None:
        return identity
    if access.mode is AuthMode.TOKEN:
        raise MessageError(ErrorCode.UNAUTHENTICATED, "Authentication required")
    if not _is_text(user) or not (username is None or _is_text(username)):
        raise MessageError(ErrorCode.BAD_MESSAGE, f"a name has at most {MAX_TEXT} characters, all of them printable")
    return msgspec.structs.replace(identity, user=user, username=username)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and is_name(value)
