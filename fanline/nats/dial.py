"""One attempt to connect to a nats-server, from its name to the end of the handshake, without waiting."""

import encodings.idna  # noqa: F401  # otherwise a thread imports it, and a process forked meanwhile gets half a module
import socket
import threading
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from fanline.nats.wire import SocketWire
from fanline.protocol.nats.addresses import NatsAddress
from fanline.protocol.nats.credentials import login_of, tls_context
from fanline.protocol.nats.handshake import Handshake, HandshakeState
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError

ANSWER_SECONDS = 10.0
"""How long a server may take to accept the connection, and then to answer the login."""
NEXT_ADDRESS_SECONDS = 1.0
"""How long one address of a name may take to accept the connection if there are others to try."""
CLIENT_NAME = "fanline"

_Steps = Generator[None, None, "Dialled"]  # at each yield: wait until the wire is ready, or until woken


class Dialled(NamedTuple):
    """A connection on which the server has accepted the login."""

    wire: SocketWire
    handshake: Handshake
    address: NatsAddress


class Dial:
    """`advance` it whenever `wire` is ready, or `wake` was called; `expire` it at its deadline."""

    def __init__(self, options: NatsOptions, address: NatsAddress, now: float, wake: Callable[[], None]) -> None:
        self.deadline = now + ANSWER_SECONDS
        self._patience = ANSWER_SECONDS
        self.wire: SocketWire | None = None
        """What to wait for; None while the name is looked up."""
        self._options = options
        self._address = address
        self._wake = wake
        self._steps = self._run()

    def advance(self, now: float) -> Dialled | None:
        """The connection, once it is open. Raises NatsError if the attempt has failed."""
        return self._step(lambda: self._steps.send(None), now)

    def expire(self, now: float) -> Dialled | None:
        """The deadline has passed: go on with the next address of the name, or fail."""
        return self._step(lambda: self._steps.throw(TimeoutError("no answer")), now)

    def close(self) -> None:
        self._steps.close()
        if self.wire is not None:
            self.wire.close()

    def _step(self, step: Callable[[], None], now: float) -> Dialled | None:
        before = self.wire, self._patience
        try:
            step()
        except StopIteration as end:
            dialled: Dialled = end.value
            return dialled
        except (OSError, UnicodeError) as error:
            self.close()
            raise NatsError(f"cannot connect to nats://{self._address}: {_text_of(error)}") from None
        except NatsError:
            self.close()
            raise
        if before != (self.wire, self._patience):
            self.deadline = now + self._patience
        return None

    def _run(self) -> _Steps:
        login = login_of(self._options, self._address)
        tls = self._options.tls or self._address.tls
        wire = yield from self._connect((yield from self._look_up()))
        handshake = Handshake(login, name=CLIENT_NAME, tls=tls)
        while handshake.state is not HandshakeState.OPEN:
            if handshake.state is HandshakeState.TLS:
                yield from self._secure(wire)
                handshake.secured()
            elif handshake.state is HandshakeState.HELLO:
                wire.send(handshake.hello())
            else:
                yield
                wire.flush()
                handshake.receive(wire.receive())
        return Dialled(wire, handshake, self._address)

    def _look_up(self) -> Generator[None, None, list[Any]]:
        """The addresses of the host. A name is looked up in a thread of its own, since that may take long."""
        found = list[list[Any] | OSError | UnicodeError]()

        def look_up(flags: int = 0) -> None:
            try:
                host, port = self._address[:2]
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
            except (OSError, UnicodeError) as error:
                found.append(error)
            self._wake()

        look_up(socket.AI_NUMERICHOST)
        if not isinstance(found[0], list):
            found.clear()
            _start_thread(look_up)
        while not found:
            yield
        if not isinstance(found[0], list):
            raise found[0]
        return found[0]

    def _connect(self, found: list[Any]) -> Generator[None, None, SocketWire]:
        """The first address that can be connected to."""
        for at, (family, _, _, _, address) in enumerate(found, 1):
            self.wire = wire = SocketWire(family)
            self._patience = ANSWER_SECONDS if at == len(found) else NEXT_ADDRESS_SECONDS
            try:
                while not wire.connect(address):
                    yield
            except OSError:
                wire.close()
                if at == len(found):
                    raise
            else:
                self._patience = ANSWER_SECONDS
                return wire
        raise OSError("no address")

    def _secure(self, wire: SocketWire) -> Generator[None, None, None]:
        wire.start_tls(tls_context(self._options), self._address.certified_host)
        while not wire.secured():
            yield
            wire.flush()
            wire.receive()


def _start_thread(work: Callable[[], None]) -> None:
    try:
        threading.Thread(target=work, name="fanline look-up", daemon=True).start()
    except RuntimeError as error:  # no more threads are possible, or the interpreter is shutting down
        raise OSError(str(error)) from None


def _text_of(error: OSError | UnicodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
