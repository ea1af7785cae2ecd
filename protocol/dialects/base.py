"""The interface of a dialect."""

from typing import Protocol

from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import Opcode


class Dialect(Protocol):
    """A pure codec that all connections share: bytes of a client -> commands, envelope of the server -> bytes.

    Inside the engine everything is an Envelope. A dialect maps its own wording to envelopes and back, and keeps no
    state of a connection. `decode` raises only MessageError, and `encode` cannot fail on an envelope that
    `from_producer` accepted.
    """

    name: str
    opcode: Opcode
    """TEXT or BINARY: the kind of WebSocket message that this dialect sends and accepts."""

    def decode(self, payload: bytes) -> list[Envelope]:
        """The commands in one client message, in order. Raises MessageError, with the command's id if it is known."""
        ...

    def encode(self, envelope: Envelope) -> bytes:
        """An envelope that answers no command: `pub`, `welcome`, `gap`, `join`, `leave`, `reconnect`, `bye`."""
        ...

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        """The `ok`, `err` or `pong` to a command (None: it could not be read); None if the dialect sends no answer."""
        ...

    def heartbeat(self, time_ms: int) -> bytes | None:
        """A message that goes out with each WebSocket ping, for clients that expect one; None for none."""
        ...
