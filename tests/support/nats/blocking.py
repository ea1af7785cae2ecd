"""The smallest shell over protocol/nats: one blocking connection, with which a test asks a real nats-server."""

import socket
from collections.abc import Callable
from typing import Self

from fanline.protocol.nats.addresses import NatsAddress, ServerPool, parse_url
from fanline.protocol.nats.commands import publish, subscribe
from fanline.protocol.nats.connection import NatsConnection, NatsSubscriptions
from fanline.protocol.nats.credentials import login_of, tls_context
from fanline.protocol.nats.handshake import Handshake, HandshakeState
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.replies import Complaint

SECONDS = 30.0
_INBOX = "_INBOX.blocking"


class BlockingClient:
    """Tries each server once; OSError or NatsError if none of them accepts us."""

    def __init__(self, options: NatsOptions) -> None:
        self.complaints: list[Complaint] = []
        self.heard: list[NatsMessage] = []
        self._subscriptions = NatsSubscriptions()
        pool = ServerPool([parse_url(url) for url in options.servers])
        for left in reversed(range(len(pool))):
            try:
                self._socket, handshake = _shake_hands(pool.next(), options)
                break
            except (OSError, NatsError):
                if not left:
                    raise
        self.connection = NatsConnection(
            handshake.info,
            handshake.parser,
            self._subscriptions,
            on_work=lambda: None,
            on_complaint=self.complaints.append,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def hear(self, subject: str) -> None:
        """What comes on the subject goes to `heard`."""
        self.connection.send(subscribe(subject, self._subscriptions.add(subject, self.heard.append)))

    def flush(self) -> None:
        """Wait until the server has processed everything sent so far."""
        done: list[NatsError | None] = []
        self.connection.confirm(done.append)
        self.wait(lambda: bool(done))

    def request(self, subject: str, payload: bytes) -> bytes:
        """The first answer."""
        answers: list[bytes] = []
        sid = self._subscriptions.add(_INBOX, lambda message: answers.append(message.payload))
        self.connection.send(subscribe(_INBOX, sid) + publish(subject, payload, reply=_INBOX))
        self.wait(lambda: bool(answers))
        self._subscriptions.remove(sid)
        return answers[0]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Write and read until the condition holds. NatsError if the server ends the connection."""
        while True:
            self._socket.sendall(self.connection.take_output())
            if condition():
                return
            self.connection.receive(_read(self._socket))


def _shake_hands(address: NatsAddress, options: NatsOptions) -> tuple[socket.socket, Handshake]:
    handshake = Handshake(login_of(options, address), name="test", tls=address.tls or options.tls)
    connected = socket.create_connection((address.host, address.port), timeout=SECONDS)
    try:
        while handshake.state is not HandshakeState.OPEN:
            if handshake.state is HandshakeState.TLS:
                context, host = tls_context(options), address.certified_host
                connected = context.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)
                connected.do_handshake()
                handshake.secured()
            elif handshake.state is HandshakeState.HELLO:
                connected.sendall(handshake.hello())
            else:
                handshake.receive(_read(connected))
    except BaseException:
        connected.close()
        raise
    return connected, handshake


def _read(connected: socket.socket) -> bytes:
    data = connected.recv(1 << 16)
    if not data:
        raise NatsError("the server closed the connection")
    return data
