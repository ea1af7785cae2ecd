"""The entrance of a port: reads requests, checks whose they are, and passes on those for the control process."""

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import trio

from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.identity import Identity
from fanline.engine.connections.address_limits import AddressLimits
from fanline.engine.connections.arrivals import Arrival
from fanline.engine.connections.http.forwarding import Forwarding
from fanline.engine.connections.http.plain_http import read_head, send_http
from fanline.engine.limits import Limit, LimitHits
from fanline.engine.log_pace import LogPace
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.control_socket import ControlSocket
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request, http_response
from fanline.protocol.websocket.origins import HostRules

_log = logging.getLogger("fanline.handshake")
Found = TypeVar("Found")
Other = Callable[[socket.socket, Request, Arrival], Awaitable[Found | None]]
"""Answers a request that is not for the control process. HttpError."""


class HttpEntrance:
    """Of one port of this process."""

    def __init__(self, settings: EngineSettings, audit: Audit, hits: LimitHits, control: ControlSocket) -> None:
        self._timeout = settings.handshake_timeout
        self._audit = audit
        self._hits = hits
        self.limits = AddressLimits(settings, hits, trio.current_time)
        self._forwarding = Forwarding(control, settings, hits)
        self._rules = HostRules(settings.hosts, settings.origins)
        self._pace = LogPace(clock=trio.current_time)  # of pages that are refused

    async def serve(self, sock: socket.socket, arrival: Arrival, other: Other[Found]) -> Found | None:
        """Read one request and have it answered; what `other` makes of it, if it is not for the control process."""
        try:
            with trio.move_on_after(self._timeout) as scope:
                with arrival.awaiting(scope):
                    request, reader = await read_head(sock)
                if request is None:
                    return None
                if not self._forwarding.takes(request):
                    del reader
                    return await other(sock, request, arrival)
                self.check_page(sock, request)
                self.limits.check(arrival.address, request)
                with arrival.awaiting(scope):
                    await self._forwarding.read_body(sock, request, reader, arrival)
            if not scope.cancelled_caught and request is not None:
                await self._pass_on(sock, request, reader.body, arrival)
                return None
            if trio.current_time() >= arrival.since + self._timeout:
                self._hits.hit(Limit.HANDSHAKE_TIME)
            await self._refuse(sock, HttpError(408, f"no whole request within {self._timeout:g} seconds"), arrival)
        except HttpError as error:
            await self._refuse(sock, error, arrival)
        return None

    async def _pass_on(self, sock: socket.socket, request: Request, body: bytearray, arrival: Arrival) -> None:
        """A whole request. HttpError, OSError."""
        address = self.limits.address_of(arrival.address, request)
        reader = await self._forwarding.ask(sock, request, body, address, arrival)
        if reader.knows_caller:
            self.limits.give_back(address)
        await self._forwarding.send(sock, reader.for_client(), body, arrival)

    async def _refuse(self, sock: socket.socket, refusal: HttpError, arrival: Arrival) -> None:
        self._hits.counters.refused += 1
        self.note(arrival, code=refusal.body["error"])
        await send_http(sock, refusal_response(refusal))

    def note(self, arrival: Arrival, identity: Identity | None = None, code: str | None = None) -> None:
        """In the audit log: the client was let in, or refused for the reason `code`."""
        if self._audit.enabled:
            event = AuditEvent.CONNECTED if code is None else AuditEvent.REFUSED
            self._audit.record(event, identity, address=arrival.address, code=code)

    def check_page(self, sock: socket.socket, request: Request) -> None:
        """Raises HttpError. Browsers do not show a page the answer, so the log has to say which setting is concerned;
        not for every request, since a page may try for ever.
        """
        try:
            self._rules.check(request, _own_address(sock))
        except HttpError as error:
            if error.status == 403 and self._pace.allows():
                _log.warning("refused a request: %s", error)
            raise


def refusal_response(refusal: HttpError) -> bytes:
    """The whole answer."""
    return http_response(refusal.status, msgspec.json.encode(refusal.body), refusal.headers)


def _own_address(sock: socket.socket) -> str:
    """The address at which the client has reached us, without the zone of a link-local one."""
    address = sock.getsockname()
    return str(address[0]).partition("%")[0] if isinstance(address, tuple) else ""
