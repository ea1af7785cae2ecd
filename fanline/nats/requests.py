"""What a producer sends to NATS and hears from it, over whichever connection there is. Without I/O."""

import secrets
from collections.abc import Mapping

from fanline.protocol.nats import commands
from fanline.protocol.nats.connection import Done, NatsConnection, NatsSubscriptions, Sink
from fanline.protocol.nats.parser import NatsError, NatsMessage
from fanline.protocol.nats.replies import ServerInfo


class NatsRequests:
    """Subscriptions outlive a connection. What is published without one is dropped, and so are the answers to what was
    asked on an earlier one; the caller asks again.
    """

    def __init__(self) -> None:
        self.subscriptions = NatsSubscriptions()
        self.inbox = f"_INBOX.{secrets.token_hex(11)}.*"
        """The subject of all answers."""
        self._connection: NatsConnection | None = None
        self._waiting: dict[str, Sink] = {}
        self._last = 0
        self.subscribe(self.inbox, self._take_answer)

    @property
    def info(self) -> ServerInfo:
        """What the server says about itself; the defaults if there is no connection."""
        return ServerInfo() if self._connection is None else self._connection.info

    def attach(self, connection: NatsConnection) -> None:
        """Use this connection from now on."""
        self._connection = connection
        connection.send(self.subscriptions.commands())

    def detach(self) -> None:
        """There is no connection any more."""
        self._connection = None
        self._waiting.clear()

    def publish(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Raises NatsError for an impossible subject."""
        self._send(commands.publish(subject, payload, headers))

    def ask(
        self,
        subject: str,
        payload: bytes,
        take: Sink,
        headers: Mapping[str, str] | None = None,
        *,
        number: int | None = None,
    ) -> int:
        """Publish a request; `take` gets the answer, if one comes. Returns the request's number.

        With a `number`, that request is published again, and the first answer to either counts. Raises NatsError for an
        impossible subject.
        """
        if number is None:
            self._last += 1
            number = self._last
        self._waiting[str(number)] = take
        self._send(commands.publish(subject, payload, headers, reply=f"{self.inbox[:-1]}{number}"))
        return number

    def confirm(self, done: Done) -> None:
        """Have `done` called once the server has processed everything sent before, or the connection has ended."""
        if self._connection is None:
            done(NatsError("there is no connection to NATS"))
        else:
            self._connection.confirm(done)

    def subscribe(self, subject: str, take: Sink, queue: str = "") -> int:
        """Have `take`, which must not raise, called with each message of a subject; with a `queue`, with those that no
        other member of it gets. Returns the subscription's ID.
        """
        sid = self.subscriptions.add(subject, take, queue)
        self._send(commands.subscribe(subject, sid, queue))
        return sid

    def unsubscribe(self, sid: int) -> None:
        self.subscriptions.remove(sid)
        self._send(commands.unsubscribe(sid))

    def _send(self, command: bytes) -> None:
        if self._connection is not None:
            self._connection.send(command)

    def _take_answer(self, message: NatsMessage) -> None:
        take = self._waiting.pop(message.subject.rpartition(".")[2], None)
        if take is not None:
            take(message)
