"""Where a client's tokens come from."""

import re
from collections.abc import Awaitable, Callable
from inspect import isawaitable

Token = str | Callable[[], str | Awaitable[str | None] | None] | None
"""A token; a function, plain or async, that returns one, or None for none; or none."""
_VISIBLE = re.compile(r"[!-~]+")


class TokenSource:
    """The tokens of one client. Raises TypeError or ValueError for what is no token and no function."""

    def __init__(self, token: Token) -> None:
        self._token = token if callable(token) else _checked(token)

    @property
    def can_change(self) -> bool:
        """Whether asking again may give another one."""
        return callable(self._token)

    async def next(self) -> str | None:
        """The token to show now. Raises what the function raises, and TypeError or ValueError for what is no token."""
        if not callable(self._token):
            return self._token
        token = self._token()
        return _checked(await token if isawaitable(token) else token)


def _checked(token: object) -> str | None:
    """The token without blanks around it, which files end with. It goes into a header, and not into an error."""
    if token is None:
        return None
    if not isinstance(token, str):
        raise TypeError(f"a token is a str, not {type(token).__name__}")
    token = token.strip()
    if not _VISIBLE.fullmatch(token):
        raise ValueError("not a token: it is empty, or has a blank, a line break or a character outside ASCII")
    return token
