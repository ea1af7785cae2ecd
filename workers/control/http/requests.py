"""How requests are read: JSON by RFC 8259, and HEAD as GET."""

import json
from collections.abc import Callable, Coroutine
from math import isinf
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

_MAX_SHOWN = 20  # characters of a number that is refused


class StrictRoute(APIRoute):
    """A call whose body has only numbers that JSON has. Python's own reader takes NaN and infinite ones, too, which
    would be stored as null.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI documents it."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body; json.JSONDecodeError."""
        return json.loads(await self.body(), parse_constant=_refuse, parse_float=_finite)


def _refuse(text: str) -> NoReturn:
    raise json.JSONDecodeError(f"{text} is no number that JSON has; send null or a text", text, 0)


def _finite(text: str) -> float:
    number = float(text)
    return _refuse(text[:_MAX_SHOWN]) if isinf(number) else number


class HeadAsGet:
    """Answers HEAD like GET, as RFC 9110, section 9.1, asks for; the HTTP server leaves out the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)
