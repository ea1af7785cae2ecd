"""The interface of a dialect."""

from typing import Protocol

from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import Opcode


class Dialect(Protocol):
    """A pure, shared codec: one client message in -> commands; one server envelope in -> one message's bytes out.

    Inside the engine everything is an Envelope. A dialect maps its own wording to and from that; it holds no state of a
    connection. Only MessageError may leave `decode`, and `encode` cannot fail on an envelope that `from_producer` has
    let in.
    """

    name: str
    opcode: Opcode
    """TEXT or BINARY: the kind of WebSocket message this dialect sends and takes."""

    def decode(self, payload: bytes) -> list[Envelope]:
        """The commands in one client message, in order; raises MessageError with the command's id where it is known."""
        ...

    def encode(self, envelope: Envelope) -> bytes:
        """An envelope that nobody asked for: `pub`, `welcome`, `gap`, `join`, `leave`, `reconnect`, `bye`."""
        ...

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        """The `ok`, `err` or `pong` to a command (None if it was unreadable); None where the dialect says nothing."""
        ...

    def heartbeat(self, time_ms: int) -> bytes | None:
        """A message to send beside each WebSocket ping, for clients that expect one; None for none."""
        ...
