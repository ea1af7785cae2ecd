"""One non-blocking socket to a nats-server, in the clear or with TLS."""

import errno
import os
import select
import socket
import ssl
from contextlib import suppress
from typing import Any

from fanline.protocol.nats.parser import NatsError

_RECEIVE_BYTES = 1 << 16
_CONNECTING = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR, errno.EAGAIN)


class SocketWire:
    """Bytes in, bytes out; no method waits. All raise OSError if the connection fails.

    TLS works on bytes in memory: the socket can be closed without a word to the server, as in a forked process.
    """

    def __init__(self, family: int) -> None:
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self._connecting = True
        self._unsent = bytearray()
        self._tls: _Tls | None = None

    @property
    def events(self) -> int:
        """What to poll the socket for."""
        if self._connecting:
            return select.POLLOUT
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    def connect(self, address: Any) -> bool:
        """Begin to connect; ask again whenever the socket is ready. Whether the connection stands."""
        code = self.socket.connect_ex(address)
        if code in _CONNECTING:
            return False
        if code not in (0, errno.EISCONN):
            raise OSError(code, os.strerror(code))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connecting = False
        return True

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Encrypt from here on, with a server whose certificate is for `host`."""
        self._tls = _Tls(context, host)
        self.secured()

    def secured(self) -> bool:
        """Whether the TLS handshake is done. Ask again after each `receive`."""
        assert self._tls is not None
        try:
            return self._tls.shake_hands()
        finally:
            self._flush_tls()

    def receive(self) -> bytes:
        """What has come in, b"" if that is nothing. Raises NatsError at the end of the stream."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            raise NatsError("the NATS server closed the connection")
        if self._tls is None:
            return data
        try:
            return self._tls.decrypt(data)
        finally:
            self._flush_tls()

    def send(self, data: bytes) -> None:
        """Send as much as the kernel takes, and keep the rest for `flush`."""
        self._unsent += data if self._tls is None else self._tls.encrypt(data)
        self.flush()

    def flush(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                sent = self.socket.send(self._unsent)
                del self._unsent[:sent]

    def close(self) -> None:
        with suppress(OSError):  # a process that is forked at this moment may get a copy, which would stay open
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _flush_tls(self) -> None:
        """TLS has something of its own to say: in its handshake, for a new key, an alert."""
        assert self._tls is not None
        self._unsent += self._tls.take()
        self.flush()


class _Tls:
    """The client's side of TLS, on bytes."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._established = False

    def shake_hands(self) -> bool:
        if not self._established:
            with suppress(ssl.SSLWantReadError):
                self._object.do_handshake()
                self._established = True
        return self._established

    def decrypt(self, data: bytes) -> bytes:
        self._incoming.write(data)
        pieces = []
        with suppress(ssl.SSLWantReadError):
            while self._established and (piece := self._object.read(_RECEIVE_BYTES)):
                pieces.append(piece)
        return b"".join(pieces)

    def encrypt(self, data: bytes) -> bytes:
        if data:
            self._object.write(data)
        return self.take()

    def take(self) -> bytes:
        """What is to be sent."""
        return self._outgoing.read()
