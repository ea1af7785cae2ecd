"""Connections that have been accepted and are not WebSockets yet: how many begin in a second, how many there may be,
and the address from which each one comes.

No client is refused here. Connections beyond the rate wait in the accept queue, so that live connections keep their
share of the worker after a restart. Where too many wait for their clients, the one that has waited longest is given up,
so that clients that send nothing cannot keep others out.
"""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from fanline.engine.limits import Limit, LimitHits
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.transport import WOULD_BLOCK, start_tls
from fanline.protocol.websocket.addresses import Networks
from fanline.protocol.websocket.proxy_protocol import ProxyHeaderError, ProxyHeaderReader

_BURST_SECONDS = 0.05  # of the pace that may begin at once
_INSTANT = 1e-6  # seconds that are not worth a sleep, and may be an error of rounding
PATIENCE_SECONDS = 1.0
"""That a client has for its request, or for an answer, however many others wait."""


class Arrival:
    """One connection that is no WebSocket yet. `address`: its client's, as far as the connection itself tells."""

    __slots__ = ("address", "since", "waiting")

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.since = now
        self.waiting: trio.CancelScope | None = None
        """Cancelled to give it up; None while it does not wait for its client."""

    @contextmanager
    def awaiting(self, scope: trio.CancelScope) -> Iterator[None]:
        """Inside the block the client is waited for."""
        self.waiting = scope
        try:
            yield
        finally:
            self.waiting = None


class Arrivals:
    """Those of one worker. `clock`: Trio's."""

    def __init__(
        self, settings: EngineSettings, hits: LimitHits, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._per_second = settings.handshakes_per_second
        self._most = settings.max_handshakes
        self._timeout = settings.handshake_timeout
        self._proxies = Networks(settings.trusted_proxies if settings.proxy_protocol else ())
        self._hits = hits
        self._clock = clock
        self._present: dict[Arrival, None] = {}  # the oldest first
        self._left = trio.Event()
        self._allowed = 1.0
        self._allowed_at = -1e9

    @contextmanager
    def one(self, address: str) -> Iterator[Arrival]:
        """A connection from this address, from its accept until it is a WebSocket or has ended."""
        arrival = Arrival(address, self._clock())
        self._present[arrival] = None
        try:
            yield arrival
        finally:
            self._present.pop(arrival, None)
            self._left.set()

    async def wait_turn(self) -> None:
        """Wait until a further connection may be accepted. Without a checkpoint if it may be now."""
        while len(self._present) >= self._most:
            await self._make_room()
        while (seconds := self._early_by()) > _INSTANT:
            self._hits.hit(Limit.HANDSHAKE_PACE)
            await trio.sleep(seconds)

    def take_turn(self) -> bool:
        """A connection was accepted. False if a further one would have to wait, should there be one."""
        self._allowed -= 1
        return self._early_by() <= _INSTANT

    def expects_header(self, arrival: Arrival) -> bool:
        """Whether a connection comes from a trusted proxy that has to say where it comes from."""
        return bool(self._proxies) and arrival.address in self._proxies

    async def before_http(self, sock: socket.socket, arrival: Arrival, tls: ssl.SSLContext | None) -> socket.socket:
        """Read a proxy's header, and begin TLS; the socket to go on with. OSError, TooSlowError."""
        with trio.fail_after(self._timeout) as scope, arrival.awaiting(scope):
            await self.read_proxy_header(sock, arrival)
            return sock if tls is None else await start_tls(sock, tls)

    async def read_proxy_header(self, sock: socket.socket, arrival: Arrival) -> None:
        """Learn from a trusted proxy where a connection comes from. OSError if it ends, or its header is bad."""
        if not self.expects_header(arrival):
            return
        reader = ProxyHeaderReader()
        try:
            while True:
                await trio.lowlevel.wait_readable(sock)
                try:
                    data = sock.recv(reader.wanted)
                except WOULD_BLOCK:
                    continue
                if not data:
                    raise ConnectionResetError("the proxy has closed the connection")
                header = reader.feed(data)
                if header is not None:
                    arrival.address = header.address or arrival.address
                    return
        except ProxyHeaderError as error:
            self._hits.hit(Limit.PROXY_HEADER, f"a connection from {arrival.address} was ended: {error}")
            raise ConnectionAbortedError(str(error)) from None

    def _early_by(self) -> float:
        """Seconds by which a further connection would be too early."""
        if not self._per_second:
            return 0.0
        now, burst = self._clock(), max(1.0, self._per_second * _BURST_SECONDS)
        self._allowed = min(burst, self._allowed + (now - self._allowed_at) * self._per_second)
        self._allowed_at = now
        return max(0.0, (1 - self._allowed) / self._per_second)

    async def _make_room(self) -> None:
        """Give up the one that has waited longest for its client, or wait until one ends or may be given up."""
        oldest = next((each for each in self._present if each.waiting is not None), None)
        patience = oldest.since + PATIENCE_SECONDS - self._clock() if oldest else float("inf")
        if oldest is not None and oldest.waiting is not None and patience <= 0:
            self._hits.hit(Limit.HANDSHAKES, f"{self._most} clients have not sent their request yet")
            oldest.waiting.cancel()
            del self._present[oldest]  # it is still to be told
            return
        self._left = trio.Event()
        with trio.move_on_after(patience):
            await self._left.wait()
