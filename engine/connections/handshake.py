"""From an accepted socket to a WebSocket, or to an HTTP answer and the end."""

import socket
import ssl
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec
import trio

from fanline.engine.access.audit import Audit
from fanline.engine.access.routes import Routes, ServedRoute
from fanline.engine.connections.admission import LATER, Admission, Admissions
from fanline.engine.connections.arrivals import Arrival
from fanline.engine.connections.http.entrance import HttpEntrance, refusal_response
from fanline.engine.connections.http.plain_http import send_http
from fanline.engine.connections.http.readiness import Readiness
from fanline.engine.counters import Counters
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.routes import Serves, Speech
from fanline.engine.sessions.origin import Origin, origin_of
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.control_socket import ControlSocket
from fanline.engine.sockets.transport import WOULD_BLOCK, can_gather, end_sending, has_buffered, start_tls
from fanline.protocol.dialects import BY_SUBPROTOCOL, ECHO, FLAT, HEALTH, PLAIN
from fanline.protocol.dialects.base import Dialect
from fanline.protocol.dialects.encoding import Encoding, encoding_of
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket import deflate
from fanline.protocol.websocket.handshake import (
    Request,
    check_upgrade,
    choose_subprotocol,
    http_response,
    upgrade_response,
)
from fanline.protocol.websocket.routes import Visit

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
_TURNED_AWAY = 32  # clients at a time that are asked to come back; each holds a socket
_TURNED_AWAY_SECONDS = 0.5
_TURNED_AWAY_TLS_SECONDS = 2.0
_DISMISSED_SECONDS = 0.01
_DISMISSED_TLS_SECONDS = 0.25  # no other client is accepted meanwhile


class Opened(NamedTuple):
    """A finished handshake."""

    encoding: Encoding
    admission: Admission
    rest: bytes
    """The first frames, if the client did not wait for our answer."""
    address: str | None
    """The client's address, if its connections are counted."""
    route: ServedRoute
    visit: Visit
    origin: Origin


class Handshakes:
    """The handshakes of one worker."""

    def __init__(
        self,
        settings: EngineSettings,
        routes: Routes,
        admissions: Admissions,
        counters: Counters,
        readiness: Readiness,
        audit: Audit,
        hits: LimitHits,
        control: ControlSocket,
    ) -> None:
        self._settings = settings
        self._routes = routes
        self._admissions = admissions
        self._counters = counters
        self._readiness = readiness
        self._turned_away = 0
        self._hits = hits
        self._entrance = HttpEntrance(settings, audit, hits, control)
        self.limits = self._entrance.limits

    async def open_websocket(self, sock: socket.socket, arrival: Arrival) -> Opened | None:
        """Read the request head and answer it; None if the answer was plain HTTP or the peer went away."""
        return await self._entrance.serve(sock, arrival, self._answer)

    async def _answer(self, sock: socket.socket, request: Request, arrival: Arrival) -> Opened | None:
        if request.method in ("GET", "HEAD") and request.path in (HEALTH_PATH, READY_PATH):
            status, body = await (self._health() if request.path == HEALTH_PATH else self._ready())
            is_head = request.method == "HEAD"
            await send_http(sock, http_response(status, msgspec.json.encode(body), is_head=is_head))
            return None
        self._entrance.check_page(sock, request)
        address = self.limits.check(arrival.address, request)
        found = self._routes.find(request)
        if found is None:
            raise HttpError(404, "there is nothing at this path")
        route, visit = found
        accept = check_upgrade(request)
        subprotocol = choose_subprotocol(request, tuple(BY_SUBPROTOCOL))
        dialect = _dialect(subprotocol, route)
        self._check_room(address)
        deflated = self._settings.compression and deflate.accepts(request.headers.get("sec-websocket-extensions"))
        response = upgrade_response(accept, subprotocol, deflate.RESPONSE if deflated else None)
        peer = partial(self.limits.address_of, arrival.address, request)
        admission = await self._admissions.admit(request, route, visit, peer, is_plain=dialect.is_plain)
        try:
            self._check_room(address)  # others arrived while this one was waited for
            sock.send(response, _with_greeting(sock))  # a fresh socket's buffer always has room for it
        except (HttpError, OSError):
            self._admissions.take_back(admission)
            raise
        self._entrance.note(arrival, admission.identity, None if admission.refusal is None else admission.refusal.code)
        origin = origin_of(peer(), request.headers.get("user-agent", ""))
        return Opened(encoding_of(dialect, deflated), admission, request.rest, address, route, visit, origin)

    def _check_room(self, address: str | None) -> None:
        """HttpError 503 or 429 if no further connection may be open, of all clients or of this address."""
        if self._counters.connections >= self._settings.max_connections > 0:
            self._hits.hit(Limit.CONNECTIONS)
            raise _full()
        if address is not None:
            self.limits.check_open(address)

    async def _health(self) -> tuple[int, dict[str, Any]]:
        """Whether the loop runs: it does, as it answers. Who gets in is said as well: an open server is to be seen."""
        return 200, {"status": "ok", "connections": self._counters.connections, "auth": self._admissions.mode}

    async def _ready(self) -> tuple[int, dict[str, Any]]:
        problems = [problem._asdict() for problem in await self._readiness.problems()]
        return (
            (503, {"status": "unready", "reasons": problems})
            if problems
            else (200, {"status": "ready", "auth": self._admissions.mode})
        )

    async def turn_away(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Tell a client for which there is no room when to come back, and let it read that; then close the socket.

        Only few at a time are waited for. Those beyond get the answer and the end at once, which may overtake it; with
        TLS, whose handshake has to be waited for, only the end.
        """
        self._counters.refused += 1
        self._turned_away += 1
        try:
            sock.setblocking(False)
            if self._turned_away <= _TURNED_AWAY:
                with await _secured(sock, tls, _TURNED_AWAY_TLS_SECONDS) as secured:
                    await send_http(secured, refusal_response(_full()), _TURNED_AWAY_SECONDS)
            elif tls is None:
                sock.send(refusal_response(_full()))
        except (OSError, trio.TooSlowError):
            pass
        finally:
            sock.close()
            self._turned_away -= 1

    async def dismiss(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Answer a client whose socket is the only one that there is room for: others wait until it is closed.

        A request comes together with the end of TCP's own handshake, or of that of TLS. It is read first: a close would
        reset it.
        """
        self._counters.refused += 1
        try:
            sock.setblocking(False)
            with await _secured(sock, tls, _DISMISSED_TLS_SECONDS) as secured:
                with trio.move_on_after(_DISMISSED_SECONDS), suppress(*WOULD_BLOCK):
                    if not has_buffered(secured):
                        await trio.lowlevel.wait_readable(secured)
                    secured.recv(65536)
                secured.send(refusal_response(_full()))
                end_sending(secured)
        except (OSError, trio.TooSlowError):
            pass
        finally:
            sock.close()


def _dialect(subprotocol: str | None, route: ServedRoute) -> Dialect:
    """What is spoken. HttpError 400 if the route does not speak it."""
    speech, serves = route.options.dialect, route.options.serves
    if subprotocol is not None:
        if speech is Speech.PLAIN:
            raise HttpError(400, "only plain clients are served here, which offer no subprotocol")
        return BY_SUBPROTOCOL[subprotocol]
    if speech is Speech.V1:
        raise HttpError(400, f"a subprotocol is needed here: one of {', '.join(BY_SUBPROTOCOL)}")
    if serves is Serves.CHANNELS:
        return FLAT if route.options.flat else PLAIN
    return HEALTH if serves is Serves.HEALTH else ECHO


def _full() -> HttpError:
    return HttpError(503, "this worker is full", LATER)


def _with_greeting(sock: socket.socket) -> int:
    """The flag with which the answer leaves together with what is said next, in one segment; TLS takes no flags."""
    return socket.MSG_MORE if can_gather(sock) else 0


async def _secured(sock: socket.socket, tls: ssl.SSLContext | None, seconds: float) -> socket.socket:
    """The socket behind a TLS handshake, if there is to be one. OSError, TooSlowError."""
    if tls is None:
        return sock
    with trio.fail_after(seconds):
        return await start_tls(sock, tls)
