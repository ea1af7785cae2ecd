"""The interface of a dialect."""

from typing import Protocol

from fanline.protocol.envelope import Envelope
from fanline.protocol.websocket.frames import Opcode
from fanline.protocol.websocket.routes import Visit


class Dialect(Protocol):
    """A pure codec that all connections share: bytes of a client -> commands, envelope of the server -> bytes.

    Inside the engine everything is an Envelope. A dialect maps its own wording to envelopes and back, and keeps no
    state of a connection. `decode` raises only MessageError, and `encode` cannot fail on an envelope that
    `from_producer` accepted.
    """

    name: str
    opcode: Opcode
    """TEXT or BINARY: the kind of WebSocket message that this dialect sends and accepts."""

    is_plain: bool
    """For clients that offer no subprotocol: they know no sessions, and are refused before the upgrade."""

    def decode(self, payload: bytes, visit: Visit = Visit()) -> list[Envelope]:  # noqa: B008  # it is immutable
        """The commands in one client message, in order. Raises MessageError, with the command's id if it is known."""
        ...

    def welcome(self, envelope: Envelope, visit: Visit) -> bytes:
        """The first message, in the form of the client's route."""
        ...

    def encode(self, envelope: Envelope) -> bytes:
        """An envelope that answers no command: `pub`, `gap`, `join`, `leave`, `unsub`, `auth`, `reconnect`, `bye`."""
        ...

    def follow_up(self, envelope: Envelope) -> bytes | None:
        """A second message that goes out behind a `pub`; None for none. Asked of plain dialects alone."""
        ...

    def encode_reply(self, command: Envelope | None, reply: Envelope) -> bytes | None:
        """The `ok`, `err` or `pong` to a command (None: it could not be read); None if the dialect sends no answer."""
        ...

    def heartbeat(self, time_ms: int) -> bytes | None:
        """A message that goes out with each WebSocket ping, for clients that expect one; None for none."""
        ...
