"""Where a client's tokens come from."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from fanline.errors import ConnectionLost, ConnectionRefused
from fanline.protocol.errors import CloseReason

Token = str | Callable[[], str | Awaitable[str]] | None
"""A token; a function, plain or async, that returns one; or none."""

_UNAUTHENTICATED = 401


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

    def may_help(self, error: ConnectionLost | ConnectionRefused) -> bool:
        """Whether the server wanted another token, and there may be one."""
        if isinstance(error, ConnectionRefused):
            return self.can_change and error.status == _UNAUTHENTICATED
        return self.can_change and error.code == CloseReason.UNAUTHENTICATED.code
