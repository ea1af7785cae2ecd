"""A shell of the state machine that performs nothing and records everything; a test plays the server."""

from collections import deque
from collections.abc import Iterable
from typing import Any, TypeVar

import fanline
from fanline.client.subscriptions.client_subscriptions import ClientSubscriptions
from fanline.client.subscriptions.cursor import Cursor
from fanline.client.subscriptions.effects import AskAgain, Begin, Deliver, Effect, End, Resumed, Send
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.answers import ErrorData, Subscribed
from fanline.protocol.messages.commands import Authenticate, Subscribe
from fanline.protocol.messages.control_data import read

CHANNEL = "task:1"
NOW = StartPosition()
SNAPSHOT = StartPosition(history=Subscribe(snapshot=True, lines=5))


LOST = fanline.Gap(CHANNEL, "expired", 6, 9, "one")
"""What `shell.gap(6, 9)` says."""


def last(count: int) -> StartPosition:
    return StartPosition(history=Subscribe(last=count))


class Local:
    """A local subscription."""

    def __init__(self, channel: str, start: StartPosition) -> None:
        self.cursor = Cursor(self, channel, start)
        self.begun: list[fanline.Position | None] = []
        self.got: list[Any] = []
        """Offsets of messages (their data where there is none), and gaps."""
        self.error: fanline.FanlineError | None = None

    @property
    def numbers(self) -> list[int]:
        """The offsets alone."""
        return [item for item in self.got if isinstance(item, int)]

    @property
    def refused_with(self) -> str | None:
        """The code of the refusal that ended it."""
        return self.error.code if isinstance(self.error, fanline.ServerError) else None

    def begin(self, position: fanline.Position | None) -> None:
        self.begun.append(position)

    def put(self, item: fanline.Message | fanline.Gap) -> None:
        if isinstance(item, fanline.Message):
            self.got.append(item.data if item.offset is None else item.offset)
        else:
            self.got.append(item)

    def end(self, error: fanline.FanlineError) -> None:
        self.error = error


LocalT = TypeVar("LocalT", bound=Local)


class RecordingShell:
    """Connected from the start. `now` moves only when a test moves it."""

    def __init__(self) -> None:
        self.machine = ClientSubscriptions(uniform=lambda low, high: high)
        self.sent: deque[Envelope] = deque()
        """Commands that were not looked at."""
        self.resumed = 0
        self.now = 0.0
        self.due: list[AskAgain] = []
        self.connect()

    # --- what happens to the client -------------------------------------------------------------------------------

    def connect(self, session: str | None = None) -> None:
        self._perform(self.machine.connected(session))

    def disconnect(self) -> None:
        self.machine.disconnected()
        self.sent.clear()

    def reconnect(self, session: str | None = None) -> None:
        self.disconnect()
        self.connect(session)

    def take_auth(self) -> Authenticate:
        """The next two commands, which have to resume a session; the first is answered."""
        ping, auth = self.sent.popleft(), self.sent.popleft()
        assert (ping.type, auth.type) == (MessageType.PING, MessageType.AUTH)
        self.reply(Envelope(MessageType.PONG, id=ping.id))
        self._auth = auth
        return read(Authenticate, auth)

    def resume(self, *channels: tuple[str, int | None, int]) -> None:
        """Answer for the channels of the session: name, offset, messages of history."""
        for channel, offset, count in channels:
            self.accept(Envelope(channel=channel), offset, count)

    def end_resumption(self, *, resumed: bool = True) -> None:
        data = {"user": None, "session": "s", "resumed": resumed}
        self.reply(Envelope(MessageType.OK, id=self._auth.id, data=data))

    def subscribe(self, start: StartPosition = NOW, channel: str = CHANNEL) -> Local:
        return self.enter(Local(channel, start))

    def enter(self, local: LocalT) -> LocalT:
        self._perform(self.machine.subscribe([local.cursor]))
        return local

    def unsubscribe(self, local: Local) -> None:
        self._perform(self.machine.unsubscribe([local.cursor]))

    def close(self, error: fanline.ConnectionLost) -> None:
        self._perform(self.machine.close(error))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due, self.due = self.due, []
        for effect in due:
            if effect.at <= self.now:
                self._perform(self.machine.ask_again(effect.channel, self.now))
            else:
                self.due.append(effect)

    # --- what the server says -------------------------------------------------------------------------------------

    def take_sub(self) -> Envelope:
        """The next command, which has to be a `sub`."""
        command = self.sent.popleft()
        assert command.type == MessageType.SUB, command
        return command

    def accept(self, command: Envelope, offset: int | None = None, count: int = 0, **more: Any) -> None:
        """Answer `ok`: with an offset as on a durable channel, whose history has `count` messages."""
        data = None if offset is None else Subscribed(recovered=more.get("recovered", True), count=count).fields()
        epoch = None if offset is None else more.get("epoch", "one")
        channel = command.channel
        self.reply(Envelope(MessageType.OK, channel=channel, id=command.id, offset=offset, epoch=epoch, data=data))

    def refuse(self, command: Envelope, code: str) -> None:
        data = ErrorData(code=code, message="no").fields()
        self.reply(Envelope(MessageType.ERR, channel=command.channel, id=command.id, data=data))

    def refuse_to_send(self, command: Envelope) -> None:
        """The command is larger than the server takes."""
        self._perform(self.machine.refuse(command, fanline.ServerError("too_large", "no"), self.now))

    def reply(self, reply: Envelope) -> None:
        effects = self.machine.answer(reply, self.now)
        assert effects is not None
        self._perform(effects)

    def hear(self, envelope: Envelope) -> None:
        """Anything of the server, in time or too late."""
        if envelope.type in (MessageType.PUB, MessageType.GAP):
            self._perform(self.machine.receive(envelope))
        else:
            self._perform(self.machine.answer(envelope, self.now) or ())

    def message(self, offset: int, previous: int) -> None:
        self.receive(MessageType.PUB, offset=offset, previous=previous, data=offset)

    def snapshot(self, offset: int) -> None:
        self.receive(MessageType.PUB, offset=offset, event="task_snapshot", data={})

    def gap(self, first: int, last: int) -> None:
        self.receive(MessageType.GAP, epoch="one", data={"from": first, "to": last, "reason": "expired"})

    def receive(self, kind: str, **fields: Any) -> None:
        self.hear(Envelope(kind, channel=CHANNEL, **fields))

    # --- effects ----------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Deliver):
                effect.cursor.owner.put(effect.item)
            elif isinstance(effect, Send):
                self.sent.append(effect.command)
            elif isinstance(effect, Begin):
                effect.cursor.owner.begin(effect.position)
            elif isinstance(effect, End):
                effect.cursor.owner.end(effect.error)
            elif isinstance(effect, AskAgain):
                self.due.append(effect)
            elif isinstance(effect, Resumed):
                self.resumed += 1


def live_shell(offset: int) -> tuple[RecordingShell, Local]:
    """A shell with one local subscription that has everything up to `offset`."""
    shell = RecordingShell()
    local = shell.subscribe()
    shell.accept(shell.take_sub(), offset)
    return shell, local
