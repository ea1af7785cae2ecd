"""Requests that are passed on to this process: who asks, and what every answer has."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from fanline.protocol.http.forwarding import KNOWN_CALLER
from fanline.protocol.websocket.handshake import SECURITY_HEADERS
from fanline.workers.control.http.paths import in_segments
from fanline.workers.control.http.problems import ApiError, answer_of

OWNER = "fanline.owner"
"""Key of the scope: whether the caller is the user who runs the server."""
CALLER = "fanline.caller"
"""Key of the scope: a list of whoever has shown a key or token that was accepted."""
_FORWARDED_FOR = b"x-forwarded-for"
_Message = MutableMapping[str, Any]


class Forwarded:
    """An ASGI application around the one that answers, on a socket on this machine. Only the user who runs the server
    can open it; a port's entrance says for whom it asks, and whoever else asks is that user.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[OWNER] = all(name != _FORWARDED_FOR for name, _ in scope["headers"])
            scope[CALLER] = known = list[str]()
            send = _with_headers(send, known)
            try:
                scope["path"] = in_segments(scope["raw_path"])
            except ApiError as error:
                await answer_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _with_headers(send: Send, known: list[str]) -> Callable[[_Message], Awaitable[None]]:
    """With the headers of every answer, and the one for whoever passes it on."""

    async def guarded(message: _Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            more = [*SECURITY_HEADERS, *([KNOWN_CALLER] if known else [])]
            encoded = [(name.lower().encode(), value.encode()) for name, value in more]
            message["headers"] = [*message["headers"], *((name, value) for name, value in encoded if name not in there)]
        await send(message)

    return guarded
