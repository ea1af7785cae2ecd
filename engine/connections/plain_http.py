"""Plain HTTP on a client's socket: reading a request, sending an answer that ends the connection."""

import socket

import trio

from fanline.engine.transport import WOULD_BLOCK, end_sending, has_buffered
from fanline.protocol.websocket.handshake import HeadReader, Request

_READ_SIZE = 4096
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1024 * 1024


async def receive(sock: socket.socket, most: int = _READ_SIZE) -> bytes:
    """The next bytes; b"" at the end. OSError."""
    while True:
        if not has_buffered(sock):
            await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(most)
        except WOULD_BLOCK:
            continue


async def read_head(sock: socket.socket) -> tuple[Request | None, HeadReader]:
    """The head of a request, None if the peer has gone; and its reader, which may have begun with the body. HttpError,
    OSError.
    """
    reader = HeadReader()
    while data := await receive(sock):
        request = reader.feed(data)
        if request is not None:
            return request, reader
    return None, reader


async def send_http(sock: socket.socket, response: bytes, linger: float = _LINGER_SECONDS) -> None:
    """Send a response that a fresh socket's buffer has room for, and end the connection."""
    sock.send(response)
    await part(sock, linger)


async def send_all(sock: socket.socket, response: memoryview) -> None:
    """Send a response of any size, at the pace at which the client reads. OSError."""
    while response:
        try:
            response = response[sock.send(response) :]
        except WOULD_BLOCK:
            await trio.lowlevel.wait_writable(sock)


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
