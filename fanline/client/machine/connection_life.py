"""The life of a client's connections: its state, what ends it for good, and what is due when. Without I/O.

The rules:

- A client that was connected comes back, until it is left or the server says what it would only repeat. Before the
  first connection is ready, any failure ends it.
- The time between two attempts is random, and grows up to a cap; after a connection that has lasted longer than the cap
  it is short again. If the server has said when to come back, that counts instead, for one attempt.
- A refused token is final only for a client that can get no other.
- A server that says nothing for its heartbeat is asked for a sign of life, and left if it gives none for as long again.
"""

import logging
import math

from fanline.base.backoff import Backoff
from fanline.client.machine.connection_states import CONNECTION_TRANSITIONS, ConnectionEvent, ConnectionState
from fanline.errors import ConnectionLost, ConnectionRefused
from fanline.protocol.errors import CloseReason
from fanline.protocol.messages.notices import Welcome

OPEN_SECONDS = 10.0
"""How long the server may take for the handshake, and again for the welcome."""
TOO_LATE = f"the server did not say welcome within {OPEN_SECONDS:g} seconds"
_REFUSED_TOKEN = (401, CloseReason.UNAUTHENTICATED.code)  # the HTTP status, the close code
_log = logging.getLogger("fanline")


class ConnectionLife:
    """`can_renew`: whether asking for a token again may give another one."""

    def __init__(self, *, can_renew: bool) -> None:
        self.state = ConnectionState.NEW
        self.can_renew = can_renew
        self.welcome: Welcome | None = None
        """That of the connection, if it has been said."""
        self.session: str | None = None
        """The one to resume: that of the last connection that was ready; None before there was one."""
        self.return_in: float | None = None
        """Seconds, if the server has said when to come back."""
        self.due = math.inf
        """When the welcome is late, or the next attempt has its time."""
        self.silent_at = math.inf
        """When the server has been silent for its heartbeat."""
        self._silence = math.inf
        self._asked_in_vain = False  # for a sign of life, since its last message
        self._begun = 0.0  # when this attempt began
        self._backoff = Backoff()

    def move(self, event: ConnectionEvent) -> None:
        self.state = CONNECTION_TRANSITIONS[self.state][event]

    def begin(self, event: ConnectionEvent, now: float) -> None:
        """Another attempt begins."""
        self.move(event)
        self.due, self._begun = math.inf, now

    def open(self, now: float) -> None:
        """There is a WebSocket."""
        self.move(ConnectionEvent.OPENED)
        self.due = now + OPEN_SECONDS

    def greet(self, welcome: Welcome) -> None:
        self.move(ConnectionEvent.WELCOMED)
        self.welcome = welcome
        self.due, self._silence = math.inf, welcome.heartbeat / 1000 or math.inf

    def be_ready(self) -> bool:
        """Everything is subscribed. Whether the client is back, and was connected before."""
        assert self.welcome is not None
        self.move(ConnectionEvent.RESUMED)
        is_back, self.session = self.session is not None, self.welcome.session
        return is_back

    def listen(self, now: float) -> None:
        """The next message is waited for."""
        self._asked_in_vain = False
        self.silent_at = math.inf if self.welcome is None else now + self._silence

    def hear(self) -> None:
        """A message has come; the server is not silent while it is not read."""
        self.silent_at = math.inf

    def miss(self, now: float) -> ConnectionLost | None:
        """The server is silent. None: it is to be asked for a sign of life."""
        if self._asked_in_vain:
            return ConnectionLost(f"nothing heard from the server for {2 * self._silence:g} seconds")
        self._asked_in_vain = True
        self.silent_at = now + self._silence
        return None

    # --- the end ------------------------------------------------------------------------------------------------

    def can_lose(self) -> bool:
        """Whether there is anything to be lost."""
        return ConnectionEvent.LOST in CONNECTION_TRANSITIONS[self.state]

    def is_final(self, error: Exception) -> bool:
        """Whether what ended the connection, or the attempt, ends the client."""
        if self.session is None:
            return True
        if not isinstance(error, ConnectionLost | ConnectionRefused) or not error.final:
            return False
        reason = error.status if isinstance(error, ConnectionRefused) else error.code
        if not self.can_renew or reason not in _REFUSED_TOKEN:
            return True
        _log.warning("the server did not accept the token; another one is asked for: %s", error)
        return False

    def wait(self, now: float) -> None:
        """The connection, or the attempt, has failed: when does the next one begin?"""
        self._forget(ConnectionEvent.LOST)
        if now - self._begun > self._backoff.cap:
            self._backoff.reset()
        delay, self.return_in = self.return_in, None
        self.due = now + (self._backoff.next_delay() if delay is None else min(delay, self._backoff.cap))

    def end(self) -> None:
        self._forget(ConnectionEvent.ENDED)

    def _forget(self, event: ConnectionEvent) -> None:
        self.move(event)
        self.welcome = None
        self.due = self.silent_at = math.inf
