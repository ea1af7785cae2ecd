"""The beginning of a connection to a nats-server, without I/O.

| state | the shell calls                            | next                                        |
|-------|--------------------------------------------|---------------------------------------------|
| INFO  | `receive` until the server has sent INFO   | TLS if either side requires it, else HELLO  |
| TLS   | `secured`, once the socket speaks TLS      | HELLO                                       |
| HELLO | `hello`, and sends what it returns         | PONG                                        |
| PONG  | `receive` until our PING is answered       | OPEN                                        |
| OPEN  |                                            |                                             |

In any state the server may refuse us with an -ERR, which raises NatsError.
"""

from enum import Enum, auto

from fanline.protocol.nats import commands
from fanline.protocol.nats.commands import Login
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser, Reply
from fanline.protocol.nats.replies import ServerInfo, complaint_of, parse_info


class HandshakeState(Enum):
    """What the handshake waits for."""

    INFO = auto()
    TLS = auto()
    HELLO = auto()
    PONG = auto()
    OPEN = auto()


class Handshake:
    """One handshake; `tls`: whether we require TLS."""

    def __init__(self, login: Login, *, name: str, tls: bool) -> None:
        self.state = HandshakeState.INFO
        self.info = ServerInfo()
        self.parser = Parser()
        """Goes on with the open connection: it may hold the beginning of what comes next."""
        self._login = login
        self._name = name
        self._tls = tls

    def receive(self, data: bytes) -> None:
        """Take what the server has sent. Raises NatsError if it refuses us, or is no nats-server."""
        for item in self.parser.feed(data):
            if isinstance(item, Reply) and item.verb == "-ERR":
                raise NatsError(complaint_of(item).text)
            if self.state is HandshakeState.INFO:
                self._take_info(item)
            elif self.state is HandshakeState.TLS:
                raise _before_tls()
            elif isinstance(item, Reply):
                self._take_reply(item)

    def secured(self) -> None:
        """TLS is established. Raises NatsError if something came before it, which anyone on the way can have sent."""
        if self.parser.is_amid:
            raise _before_tls()
        self._move(HandshakeState.TLS, HandshakeState.HELLO)

    def hello(self) -> bytes:
        """What to send now: who we are, and a PING."""
        self._move(HandshakeState.HELLO, HandshakeState.PONG)
        return commands.hello(self.info, self._login, name=self._name, tls=self._tls)

    def _take_info(self, item: Reply | NatsMessage) -> None:
        if isinstance(item, NatsMessage) or item.verb != "INFO":
            raise NatsError("this is not a NATS server: it does not begin with INFO")
        self.info = parse_info(item.detail)
        if self._tls and not (self.info.tls_required or self.info.tls_available):
            raise NatsError("TLS is required here, but the NATS server does not offer it")
        self._tls = self._tls or self.info.tls_required
        self.state = HandshakeState.TLS if self._tls else HandshakeState.HELLO

    def _take_reply(self, reply: Reply) -> None:
        if reply.verb == "INFO":  # sent again, right after the PONG, if the cluster or the account's limits differ
            self.info = parse_info(reply.detail)
        elif reply.verb == "PONG" and self.state is HandshakeState.PONG:
            self.state = HandshakeState.OPEN

    def _move(self, expected: HandshakeState, then: HandshakeState) -> None:
        if self.state is not expected:
            raise AssertionError(f"the handshake is in state {self.state.name}, not {expected.name}")
        self.state = then


def _before_tls() -> NatsError:
    return NatsError("the NATS server sent something between its INFO and TLS")
