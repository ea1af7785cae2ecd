"""A WebSocket client on a plain blocking socket; under locust, gevent makes its waits cooperative."""

import base64
import os
import socket
import ssl
from urllib.parse import urlsplit

from fanline.protocol.errors import FrameError
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, decode_close, encode_masked_frame
from fanline.protocol.websocket.handshake import MAX_HEAD_BYTES, accept_value

_MESSAGE_LIMIT = 16 * 1024 * 1024
_READ_BYTES = 256 * 1024


class WebSocketError(Exception):
    """The connection could not be opened, or has ended; str() is a sentence."""


class WebSocket:
    """One open connection. Every method except `close` raises WebSocketError."""

    def __init__(self, url: str, subprotocol: str, timeout: float) -> None:
        """Connect to a ws:// or wss:// URL. `timeout`, in seconds, bounds each wait of the handshake, and each send."""
        self._timeout = timeout
        self._reader = FrameReader(_MESSAGE_LIMIT, from_client=False)
        try:
            self._socket = _connect(url, timeout)
        except (OSError, ValueError) as error:
            raise WebSocketError(f"cannot connect to {url}: {error}") from None
        try:
            self._pending = self._upgrade(url, subprotocol)
        except BaseException:
            self.close()
            raise

    def send(self, opcode: Opcode, payload: bytes) -> None:
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(encode_masked_frame(opcode, payload, os.urandom(4)))
        except OSError as error:
            raise WebSocketError(f"cannot send: {error}") from None

    def receive(self, timeout: float) -> list[WebSocketMessage]:
        """The messages that came in one read, with pings answered; empty if nothing came within `timeout` seconds."""
        data = self._pending or self._read(timeout)
        self._pending = b""
        if not data:
            return []
        try:
            messages = list(self._reader.feed(data))
            return [message for message in messages if not self._handled(message)]
        except FrameError as error:
            raise WebSocketError(f"the server broke the framing: {error}") from None

    def fileno(self) -> int:
        """Of the socket, to wait until there is something to receive."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _handled(self, message: WebSocketMessage) -> bool:
        if message.opcode is Opcode.PING:
            self.send(Opcode.PONG, message.payload)
        if message.opcode is Opcode.CLOSE:
            code, text = decode_close(message.payload)
            raise WebSocketError(f"closed by the server: {code} {text}")
        return message.opcode >= Opcode.CLOSE

    def _read(self, timeout: float) -> bytes:
        """Bytes of the peer; b"" after `timeout` seconds."""
        try:
            self._socket.settimeout(timeout)
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            return b""
        except OSError as error:
            raise WebSocketError(f"connection lost: {error}") from None
        if not data:
            raise WebSocketError("connection lost: ended without a close frame")
        return data

    def _upgrade(self, url: str, subprotocol: str) -> bytes:
        """The opening handshake. Returns the bytes that came after the head of the response."""
        key = base64.b64encode(os.urandom(16)).decode()
        try:
            self._socket.sendall(_request(url, subprotocol, key))
        except OSError as error:
            raise WebSocketError(f"cannot send: {error}") from None
        head = b""
        while b"\r\n\r\n" not in head:
            data = self._read(self._timeout)
            if not data or len(head) > MAX_HEAD_BYTES:
                raise WebSocketError("no answer to the opening handshake")
            head += data
        head, _, rest = head.partition(b"\r\n\r\n")
        _check_response(head.decode("latin-1"), accept_value(key), subprotocol)
        return rest


def _connect(url: str, timeout: float) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or parts.hostname is None:
        raise ValueError("a WebSocket URL looks like ws://127.0.0.1:8080/ws")
    secure = parts.scheme == "wss"
    plain = socket.create_connection((parts.hostname, parts.port or (443 if secure else 80)), timeout)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)


def _request(url: str, subprotocol: str, key: str) -> bytes:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {subprotocol}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def _check_response(head: str, accept: str, subprotocol: str) -> None:
    status, *lines = head.split("\r\n")
    if status.split(" ")[1:2] != ["101"]:
        raise WebSocketError(f"refused by the server: {status}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("sec-websocket-accept") != accept or headers.get("sec-websocket-protocol") != subprotocol:
        raise WebSocketError("the answer to the opening handshake does not match the request")
