"""Sockets, plain or TLS, behind the same calls: `send` and `recv` that never block.

A TLS socket is Python's own `ssl.SSLSocket` in non-blocking mode, so the outbox, a client's connection and the one to
NATS do not know which one they have; only what differs is here.
"""

import socket
import ssl

import trio

from fanline.engine.settings import EngineSettings

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""Raised by `send` and `recv` when the kernel, or TLS, cannot go on now."""


def has_buffered(sock: socket.socket) -> bool:
    """Whether `recv` has data that the kernel no longer knows of, so that waiting for the socket could be for ever."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


async def receive(sock: socket.socket, most: int) -> bytes:
    """The next bytes; b"" at the end. OSError."""
    while True:
        if not has_buffered(sock):
            await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(most)
        except WOULD_BLOCK:
            continue


async def send_all(sock: socket.socket, data: memoryview) -> None:
    """Send data of any size, at the pace at which the peer reads. OSError."""
    while data:
        try:
            data = data[sock.send(data) :]
        except WOULD_BLOCK:
            await trio.lowlevel.wait_writable(sock)


def can_gather(sock: socket.socket) -> bool:
    """Whether `sendmsg` takes several buffers; TLS has to be given one at a time, and the same one again on a retry."""
    return not isinstance(sock, ssl.SSLSocket)


def load_tls(settings: EngineSettings) -> ssl.SSLContext | None:
    """The TLS context the settings ask for, if any; OSError naming the files if they cannot be used."""
    if not settings.ssl_certfile:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile or None)
    except OSError as error:  # ssl.SSLError is one
        files = f"{settings.ssl_certfile} and {settings.ssl_keyfile or 'no key file'}"
        raise OSError(f"cannot use the TLS files {files}: {error}") from None
    return context


async def start_tls(sock: socket.socket, context: ssl.SSLContext, *, host: str | None = None) -> ssl.SSLSocket:
    """The server's side of a TLS handshake, or with `host` that of a client of this host; takes `sock` over. OSError
    (ssl.SSLError is one) if the peer will not.
    """
    secured = context.wrap_socket(sock, server_side=host is None, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
            else:
                return secured
    except BaseException:
        secured.close()  # `sock` no longer owns the descriptor
        raise


def end_sending(sock: socket.socket) -> None:
    """Tell the peer that nothing more will come; it may still send. OSError if it is gone already."""
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.unwrap()  # sends close_notify; the peer's own is not waited for
        except (*WOULD_BLOCK, ssl.SSLError, ValueError):
            pass
    sock.shutdown(socket.SHUT_WR)
