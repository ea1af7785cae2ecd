"""The wire to one nats-server: a socket on Trio, plain or TLS, on which the handshake is done. Raises BusError."""

import socket
from typing import NamedTuple

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.sockets.transport import WOULD_BLOCK, has_buffered, start_tls
from fanline.protocol.nats.addresses import NatsAddress
from fanline.protocol.nats.credentials import login_of, tls_context
from fanline.protocol.nats.handshake import Handshake, HandshakeState
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError, Parser
from fanline.protocol.nats.replies import ServerInfo

CONNECT_SECONDS = 2.0
"""How long a server may take for all of it."""
_READ_BYTES = 1 << 16


class Wire(NamedTuple):
    """A server that has accepted our login."""

    socket: socket.socket
    info: ServerInfo
    parser: Parser
    """May hold the beginning of the next message."""

    async def read(self) -> bytes:
        """Some bytes, at least one. BusError if the connection is lost."""
        return await _read(self.socket)

    async def write(self, data: bytes) -> None:
        """All of it. BusError if the connection is lost."""
        await _write(self.socket, data)

    def close(self) -> None:
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


async def open_wire(address: NatsAddress, options: NatsOptions, name: str) -> Wire:
    """Connect and log in; `name` is for the server's own lists of clients. BusError saying what went wrong where."""
    try:
        with trio.fail_after(CONNECT_SECONDS):
            return await _open(address, options, name)
    except trio.TooSlowError:
        reason = f"no answer within {CONNECT_SECONDS:g} seconds"
    except (OSError, UnicodeError, NatsError, BusError) as error:  # UnicodeError: no host has this name
        reason = str(error) or type(error).__name__
    raise BusError(f"cannot connect to NATS at {address}: {reason}")


async def _open(address: NatsAddress, options: NatsOptions, name: str) -> Wire:
    handshake = Handshake(login_of(options, address), name=name, tls=address.tls or options.tls)
    sock = await _connect(address)
    try:
        while handshake.state is not HandshakeState.OPEN:
            if handshake.state is HandshakeState.TLS:
                sock = await start_tls(sock, tls_context(options), host=address.certified_host)
                handshake.secured()
            elif handshake.state is HandshakeState.HELLO:
                await _write(sock, handshake.hello())
            else:
                handshake.receive(await _read(sock))
    except BaseException:
        sock.close()
        raise
    return Wire(sock, handshake.info, handshake.parser)


async def _connect(address: NatsAddress) -> socket.socket:
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        raise _lost(_first_cause(error)) from None
    sock = socket.socket(stream.socket.family, stream.socket.type, fileno=stream.socket.detach())
    sock.setblocking(False)
    return sock


async def _read(sock: socket.socket) -> bytes:
    while True:
        if not has_buffered(sock):
            await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(_READ_BYTES)
        except WOULD_BLOCK:
            continue
        except OSError as error:
            raise _lost(error) from None
        if not data:
            raise BusError("the server closed the connection")
        return data


async def _write(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except WOULD_BLOCK:
            await trio.lowlevel.wait_writable(sock)
        except OSError as error:
            raise _lost(error) from None


def _lost(error: OSError) -> BusError:
    return BusError(error.strerror or str(error) or type(error).__name__)


def _first_cause(error: OSError) -> OSError:
    """Why the first attempt failed. Trio's own error only says that all attempts did, even if there was one."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error
