"""The ways by which requests come in, and what is so for all of them: headers, sizes, and which pages may ask."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from fanline.engine.settings import EngineSettings
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import SECURITY_HEADERS, Request
from fanline.protocol.websocket.origins import HostRules
from fanline.workers.control.problems import ApiError, answer_of

MAX_BODY_BYTES = 1024 * 1024
OWNER = "fanline.owner"
"""Key of the scope: whether the caller is the user who runs the server."""
_FORWARDED_FOR = b"x-forwarded-for"
_Message = MutableMapping[str, Any]


class Entrance:
    """An ASGI application around the one that answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def check(self, scope: Scope) -> None:
        """Complete what is known of a request. HttpError if it may not come in."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _with_security_headers(send)
        try:
            self.check(scope)
        except HttpError as error:
            refusal = ApiError(error.status, error.body["error"], str(error), headers=dict(error.headers))
            await answer_of(refusal)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


class Forwarded(Entrance):
    """The socket on this machine. Only the user who runs the server can open it; a worker says for whom it asks, and
    whoever else asks is that user.
    """

    def check(self, scope: Scope) -> None:
        scope[OWNER] = all(name != _FORWARDED_FOR for name, _ in scope["headers"])


class OwnPort(Entrance):
    """A port of its own: what the workers check of a request is checked here."""

    def __init__(self, app: ASGIApp, settings: EngineSettings) -> None:
        super().__init__(app)
        self._rules = HostRules(settings.hosts, settings.origins)

    def check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if "host" not in headers:
            raise HttpError(400, "a request here needs a Host header")
        if int(headers.get("content-length", "0")) > MAX_BODY_BYTES or "transfer-encoding" in headers:
            raise HttpError(413, f"a body has a Content-Length of at most {MAX_BODY_BYTES} bytes")
        request = Request(scope["method"], scope["path"], "", "1.1", headers, b"")
        self._rules.check(request, str((scope.get("server") or ("",))[0]))
        scope[OWNER] = False


def _with_security_headers(send: Send) -> Callable[[_Message], Awaitable[None]]:
    async def guarded(message: _Message) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message["headers"]}
            more = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS]
            message["headers"] = [*message["headers"], *((name, value) for name, value in more if name not in known)]
        await send(message)

    return guarded
