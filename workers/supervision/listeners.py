"""Listening sockets: one SO_REUSEPORT socket per worker slot, all on one address.

The supervisor owns them, so they outlive workers: while a worker is being replaced, connections wait in its slot's
accept queue instead of being refused.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from fanline.workers.errors import ServeError

BACKLOG = 4096
"""Connections that may wait per slot; the kernel caps this at net.core.somaxconn."""

_Address = tuple[Any, ...]
"""A socket address; its length depends on the family."""


class PortTakenError(ServeError):
    """Another program listens on the port."""


@contextmanager
def open_listeners(host: str, port: int, count: int, setting: str = "port") -> Iterator[list[socket.socket]]:
    """`count` listening sockets on one address; port 0 takes a free one, for all of them. Raises ServeError.

    `setting`: which one has the number of the port.
    """
    with ExitStack() as stack:
        try:
            family, address = _resolve(host, port)
            _refuse_if_taken(family, address)
            sockets: list[socket.socket] = []
            for _ in range(count):
                sockets.append(stack.enter_context(_listen(family, address)))
                address = sockets[0].getsockname()
        except OSError as error:
            kind = PortTakenError if error.errno == errno.EADDRINUSE else ServeError
            raise kind(_explain(error, host, port, _ADVICE[setting])) from None
        yield sockets


def websocket_url(listener: socket.socket, *, tls: bool) -> str:
    """The endpoint for clients on this machine."""
    host, port = listener.getsockname()[:2]
    scheme = "wss" if tls else "ws"
    return f"{scheme}://[{host}]:{port}/ws" if ":" in host else f"{scheme}://{host}:{port}/ws"


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, _Address]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address


def _refuse_if_taken(family: socket.AddressFamily, address: _Address) -> None:
    """SO_REUSEPORT alone would let a second server of the same user share the port silently."""
    with _bind(family, address, share=False):
        pass


def _listen(family: socket.AddressFamily, address: _Address) -> socket.socket:
    listener = _bind(family, address, share=True)
    listener.listen(BACKLOG)
    return listener


def _bind(family: socket.AddressFamily, address: _Address, *, share: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


_ADVICE = {"port": "choose another with --port, or 0 for a free one", "control_port": "choose another control_port"}


def _explain(error: OSError, host: str, port: int, advice: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; {advice}"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs more privileges; choose one above 1023"
    return f"cannot listen on {host} port {port}: {error.strerror or error}; check --host and --port"
