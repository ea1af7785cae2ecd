"""Plain HTTP on a client's socket: reading a request, sending an answer that ends the connection."""

import socket

import trio

from fanline.engine.sockets.transport import WOULD_BLOCK, end_sending, receive
from fanline.protocol.websocket.handshake import HeadReader, Request

_READ_SIZE = 4096
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1024 * 1024


async def read_head(sock: socket.socket) -> tuple[Request | None, HeadReader]:
    """The head of a request, None if the peer has gone; and its reader, which may have begun with the body. HttpError,
    OSError.
    """
    reader = HeadReader()
    data = await _first(sock)
    while data:
        request = reader.feed(data)
        if request is not None:
            return request, reader
        data = await receive(sock, _READ_SIZE)
    return None, reader


async def _first(sock: socket.socket) -> bytes:
    """The first bytes, which have mostly come by the time a connection is accepted: to wait for them would take another
    turn of the loop. OSError.
    """
    try:
        return sock.recv(_READ_SIZE)
    except WOULD_BLOCK:
        return await receive(sock, _READ_SIZE)


async def send_http(sock: socket.socket, response: bytes, linger: float = _LINGER_SECONDS) -> None:
    """Send a response that a fresh socket's buffer has room for, and end the connection."""
    sock.send(response)
    await part(sock, linger)


async def part(sock: socket.socket, linger: float = _LINGER_SECONDS) -> None:
    """End the connection, and wait a moment for the peer to do the same: a close with unread bytes would reset it."""
    end_sending(sock)
    read = 0
    with trio.move_on_after(linger):
        while read < _LINGER_BYTES:
            await trio.lowlevel.wait_readable(sock)
            try:
                data = socket.socket.recv(sock, 65536)  # below TLS, which has ended
            except BlockingIOError:
                continue
            if not data:
                return
            read += len(data)
