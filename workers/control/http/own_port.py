"""`control_port`: requests to a port of the control process itself.

They are read, checked and bounded by the code of the workers, with the same settings, and passed on to this process's
own socket: what holds at a worker's port holds here without being said twice.
"""

import logging
import socket
from typing import NoReturn

import trio

from fanline.engine.access.audit import Audit
from fanline.engine.connections.arrivals import Arrival, Arrivals
from fanline.engine.connections.http.entrance import HttpEntrance
from fanline.engine.counters import Counters
from fanline.engine.limits import LimitHits
from fanline.engine.log_pace import LogPace
from fanline.engine.settings import EngineSettings
from fanline.engine.sockets.control_socket import ControlSocket
from fanline.engine.sockets.transport import load_tls
from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request

_NO_ROOM_SECONDS = 0.1  # before the kernel is asked again for what it had no file or no memory
_log = logging.getLogger("fanline.control")


class OwnPort:
    """`path`: of this process's own socket. OSError if the TLS files cannot be used."""

    def __init__(self, settings: EngineSettings, path: str, audit: Audit) -> None:
        hits = LimitHits(Counters())
        self._control = ControlSocket(path, settings, hits)
        self._arrivals = Arrivals(settings, hits)
        self._entrance = HttpEntrance(settings, audit, hits, self._control)
        self._tls = load_tls(settings)
        self._pace = LogPace(clock=trio.current_time)

    async def serve(self, listener: socket.socket) -> NoReturn:
        """Serve on a listening socket until cancelled."""
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._control.run)
            while True:
                await trio.lowlevel.wait_readable(listener)
                await self._arrivals.wait_turn()
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    continue
                except OSError as error:  # no file or no memory, or the peer went away while it waited in the queue
                    if self._pace.allows():
                        _log.warning("cannot accept a connection to control_port: %s", error.strerror)
                    await trio.sleep(_NO_ROOM_SECONDS)
                    continue
                self._arrivals.take_turn()
                nursery.start_soon(self._run, sock, str(address[0]))

    async def _run(self, sock: socket.socket, peer: str) -> None:
        """One connection, which carries one request."""
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._arrivals.one(peer) as arrival:
                sock = await self._arrivals.before_http(sock, arrival, self._tls)
                await self._entrance.serve(sock, arrival, _nothing_else)
        except (OSError, trio.TooSlowError):
            pass  # the peer is gone, or cannot speak TLS
        except Exception:  # noqa: BLE001  # our own fault, and still that of one connection only
            _log.exception("a connection failed")
        finally:
            if sock.fileno() >= 0:
                trio.lowlevel.notify_closing(sock)
                sock.close()


async def _nothing_else(_sock: socket.socket, _request: Request, _arrival: Arrival) -> None:
    raise HttpError(404, "there is nothing at this path")
