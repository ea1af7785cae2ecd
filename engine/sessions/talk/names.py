"""What a client says of itself with `connect`."""

from typing import Any, NamedTuple

from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import MAX_TEXT
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.text import is_name


class Introduction(NamedTuple):
    """Not to be believed before it is confirmed."""

    user: str | None
    username: str | None
    token: str | None


def introduction_of(command: PlainCommand) -> Introduction:
    """Raises MessageError(BAD_MESSAGE) for what can be no name."""
    user, username, token = command.data, command.said.get("username"), command.said.get("token")
    if not all(each is None or _is_text(each) for each in (user, username)):
        raise MessageError(ErrorCode.BAD_MESSAGE, f"a name has at most {MAX_TEXT} characters, all of them printable")
    return Introduction(user, username, token if isinstance(token, str) and token else None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and is_name(value)
