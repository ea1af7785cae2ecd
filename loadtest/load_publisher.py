"""A NATS publisher on a plain blocking socket; under locust, gevent makes its waits cooperative."""

import socket
import ssl
import time

from fanline.protocol.nats import commands
from fanline.protocol.nats.addresses import NatsAddress
from fanline.protocol.nats.commands import PING, PONG, Login
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser, Reply
from fanline.protocol.nats.replies import complaint_of, parse_info

_READ_BYTES = 64 * 1024


class LoadPublisher:
    """One connection that publishes. Every method except `close` raises NatsError."""

    def __init__(self, address: NatsAddress, timeout: float) -> None:
        """Connect and authenticate; `timeout` in seconds bounds every wait."""
        self._timeout = timeout
        self._parser = Parser()
        self._replies: list[Reply] = []
        try:
            self._socket = socket.create_connection((address.host, address.port), timeout)
        except OSError as error:
            raise NatsError(f"cannot connect to NATS at {address.host}:{address.port}: {error}") from None
        try:
            self._greet(address)
        except BaseException:
            self.close()
            raise

    def publish(self, subject: str, payload: bytes) -> None:
        """Hand one message to the kernel. Raises if the server refused an earlier one."""
        self._send(commands.publish(subject, payload))
        self._take(timeout=0)

    def flush(self) -> None:
        """Return when the server has accepted everything published so far."""
        self._send(PING)
        self._wait_for("PONG")

    def close(self) -> None:
        self._socket.close()

    def _greet(self, address: NatsAddress) -> None:
        info = parse_info(self._wait_for("INFO").detail)
        tls = address.tls or info.tls_required
        if tls:
            try:
                self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=address.host)
            except OSError as error:
                raise NatsError(f"no TLS with NATS at {address.host}: {error}") from None
        login = Login(address.user, address.password, address.token)
        self._send(commands.hello(info, login, name="loadtest", tls=tls))
        self._wait_for("PONG")

    def _wait_for(self, verb: str) -> Reply:
        deadline = time.monotonic() + self._timeout
        while (remaining := deadline - time.monotonic()) > 0:
            self._take(remaining)
            while self._replies:
                reply = self._replies.pop(0)
                if reply.verb == verb:
                    return reply
        raise NatsError(f"NATS sent no {verb} within {self._timeout:g} s")

    def _take(self, timeout: float) -> None:
        """Read what the server sends within `timeout` seconds: answer its pings, raise its errors, keep the rest."""
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(_READ_BYTES)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise NatsError(f"connection to NATS lost: {error}") from None
        if not data:
            raise NatsError("connection to NATS lost: closed by the server")
        for item in self._parser.feed(data):
            if not isinstance(item, NatsMessage):  # nothing is subscribed to
                self._answer(item)

    def _answer(self, reply: Reply) -> None:
        if reply.verb == "PING":
            self._send(PONG)
        elif reply.verb == "-ERR":
            raise NatsError(complaint_of(reply).text)
        elif reply.verb in ("INFO", "PONG"):
            self._replies.append(reply)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(data)
        except OSError as error:
            raise NatsError(f"connection to NATS lost: {error}") from None
