"""Where a client's tokens come from."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable

Token = str | Callable[[], str | Awaitable[str]] | None
"""A token; a function, plain or async, that returns one; or none."""


class TokenSource:
    """The tokens of one client."""

    def __init__(self, token: Token) -> None:
        self._token = token

    @property
    def can_change(self) -> bool:
        """Whether asking again may give another one."""
        return callable(self._token)

    async def next(self) -> str | None:
        """The token to show now. Raises what the function raises."""
        if not callable(self._token):
            return self._token
        token = self._token()
        return await token if isawaitable(token) else token
