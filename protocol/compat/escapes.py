"""Ids of other systems as ids of channels: what the grammar of channels does not allow is escaped, and nothing else.

A byte outside the grammar becomes `~` and two capital hexadecimal digits, as in `user:anna~20b`; so does a dot that
would make an empty token, and a `~` before digits that would look like an escape. An id that is in the grammar stays
as it is, and two ids never become one.
"""

import re

from fanline.protocol.channels import TOKEN_CHARACTERS

_ESCAPED_DIGITS = "|".join(
    f"{byte:02X}" for byte in range(256) if chr(byte) in "~." or chr(byte) not in TOKEN_CHARACTERS
)
_TO_ESCAPE = re.compile(
    rf"~(?={_ESCAPED_DIGITS})"  # would read as an escape
    r"|\A\.|\.\Z|(?<=\.)\."  # would leave an empty token
    rf"|[^.{re.escape(TOKEN_CHARACTERS)}]+"
)
_ESCAPES = re.compile(rf"(?:~(?:{_ESCAPED_DIGITS}))+")


def escape_id(text: str) -> str:
    """A text that is not empty as the id of a channel."""
    return _TO_ESCAPE.sub(_escaped, text)


def inbox_name(user: str) -> str:
    """The channel of a user's inbox; of a long name with much to escape, `check_channel` accepts none."""
    return f"user:{escape_id(user)}"


def unescape_id(text: str) -> str:
    """The inverse of `escape_id`. Escapes that are not UTF-8, as that function never makes them, stay as they are."""
    return _ESCAPES.sub(_unescaped, text)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _unescaped(escapes: re.Match[str]) -> str:
    try:
        return bytes.fromhex(escapes[0].replace("~", "")).decode()
    except UnicodeDecodeError:
        return escapes[0]
