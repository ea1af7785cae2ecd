"""A client machine whose shell and server a test plays: nothing moves by itself, and the time is a number."""

from collections import deque
from typing import Any, TypeVar

import fanline
from fanline.client.machine.client_machine import ClientMachine
from fanline.client.machine.effects import AskToken, Connect, ShellEffect, Tell, Transmit
from fanline.client.machine.local_subscription import LocalSubscription
from fanline.client.machine.requests import ClientRequest
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.dialects import JSON
from fanline.protocol.envelope import Envelope, MessageType, decode_json, encode_json
from fanline.protocol.messages.answers import Authenticated
from fanline.protocol.messages.notices import Limits, Welcome

Effect = TypeVar("Effect", bound=ShellEffect)
HEARTBEAT = 20.0


def nothing() -> None:
    """What a test has no use for."""


class PlayedClient:
    def __init__(self, *, can_renew: bool = False) -> None:
        self.machine = ClientMachine(JSON, can_renew=can_renew)
        self.now = 100.0
        self.effects: list[ShellEffect] = []
        """All that were not looked at, but for what is sent or told."""
        self.told: list[str] = []
        self.sent: deque[Envelope] = deque()
        self.connections = 0
        self.user = "ann"
        """Whom the server takes the client for."""
        self.perform(self.machine.start(self.now))

    def perform(self, effects: list[ShellEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Transmit):
                self.sent.append(decode_json(effect.payload))
            elif isinstance(effect, Tell):
                self.told.append(effect.sentence)
            else:
                self.effects.append(effect)

    def take(self, kind: type[Effect]) -> Effect:
        """The next effect, which has to be of this kind."""
        effect = self.effects.pop(0)
        assert isinstance(effect, kind), effect
        return effect

    # --- the shell ------------------------------------------------------------------------------------------------

    def connect(self, token: str | None = None) -> None:
        """Open a WebSocket, and have the server say welcome."""
        self.take(AskToken)
        self.perform(self.machine.authorized(token))
        assert self.take(Connect).token == token
        self.perform(self.machine.opened(JSON.subprotocol, self.now))
        self.hear(welcome(self.connections, self.user))
        self.connections += 1

    def ready(self) -> "PlayedClient":
        self.connect()
        assert self.machine.ready
        return self

    def lose(self, error: Exception | None = None) -> None:
        self.sent.clear()
        self.perform(self.machine.lost(error or fanline.ConnectionLost("lost"), self.now))

    def come_back(self) -> None:
        """Connect when the back-off is over; the server has forgotten the session."""
        self.wait(self.machine.deadline - self.now)
        self.connect()
        self.forget_session()

    def forget_session(self) -> None:
        for _ in range(2 if self.sent and self.sent[0].id == "~mark" else 0):
            command = self.sent.popleft()
            if command.type == MessageType.AUTH:
                data = Authenticated(user=None, session="s", resumed=False)
                self.hear(Envelope(MessageType.OK, id=command.id, data=data.fields()))
            else:
                self.hear(Envelope(MessageType.PONG, id=command.id))

    def wait(self, seconds: float) -> None:
        self.now += max(0.0, seconds)
        self.perform(self.machine.tick(self.now))

    def hear(self, envelope: Envelope) -> None:
        self.machine.reading(self.now)
        self.perform(self.machine.received(encode_json(envelope), self.now))
        self.machine.reading(self.now)

    # --- the program ----------------------------------------------------------------------------------------------

    def ask(self, kind: MessageType, id: str = "1", **fields: Any) -> ClientRequest:  # noqa: A002  # the word of the protocol
        request = ClientRequest(Envelope(kind, id=id, **fields), nothing)
        self.perform(self.machine.request(request, self.now))
        return request

    def enter(self, channel: str = "news:a", buffer: int = 100) -> LocalSubscription:
        local = LocalSubscription({channel: StartPosition()}, buffer, nothing, gaps=True)
        self.perform(self.machine.enter(local, self.now))
        return local

    def accept(self, **fields: Any) -> Envelope:
        """Answer the next command with `ok`."""
        command = self.sent.popleft()
        self.hear(Envelope(MessageType.OK, id=command.id, channel=command.channel, **fields))
        return command


def welcome(number: int, user: str = "ann") -> Envelope:
    limits = Limits(message=65_536)
    name = f"session-{number}"
    data = Welcome(session=name, connection=f"c-{number}", user=user, heartbeat=int(HEARTBEAT * 1000), limits=limits)
    return Envelope(MessageType.WELCOME, data=data.fields())
