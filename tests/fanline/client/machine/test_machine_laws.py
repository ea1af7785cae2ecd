"""The laws of the machine, under random sequences of everything that can happen to a client."""

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import fanline
from fanline.client.machine.connection_states import CONNECTION_TRANSITIONS, ConnectionState
from fanline.client.machine.effects import AskToken, Connect
from fanline.client.machine.requests import ClientRequest
from fanline.protocol.dialects import JSON
from fanline.protocol.envelope import MessageType
from tests.fanline.client.machine.played import PlayedClient

KINDS = st.sampled_from([MessageType.HISTORY, MessageType.CALL, MessageType.PUB, MessageType.ACK])
SAFE = (MessageType.HISTORY, MessageType.ACK)


class Commands(RuleBasedStateMachine):
    """Each command is settled exactly once; what may not be done twice is sent once at most; there is one attempt at a
    time; and a client that is left alone comes to rest connected, with everything answered.
    """

    @initialize()
    def begin(self) -> None:
        self.client = PlayedClient().ready()
        self.requests: list[ClientRequest] = []
        self.woken: list[str] = []
        self.times_sent: dict[str, int] = {}
        self.numbers = itertools.count()

    @property
    def ready(self) -> bool:
        return self.client.machine.ready

    @rule(kind=KINDS)
    def ask(self, kind: MessageType) -> None:
        name = f"r{next(self.numbers)}"
        request = self.client.ask(kind, name, channel="news:a")
        request._wake = lambda: self.woken.append(name)  # a test looks at what wakes the program
        self.requests.append(request)

    @rule()
    def enter(self) -> None:
        if len(self.client.machine._subscriptions._channels) < 3:
            self.client.enter(f"news:{next(self.numbers)}")

    @precondition(lambda self: self.client.sent)
    @rule(count=st.integers(1, 4))
    def answer(self, count: int) -> None:
        self.client.forget_session()
        for _ in range(min(count, len(self.client.sent))):
            command = self.client.accept()
            if command.id and command.id.startswith("r"):
                self.times_sent[command.id] = self.times_sent.get(command.id, 0) + 1

    @precondition(lambda self: self.requests)
    @rule(number=st.integers(0, 9))
    def give_up(self, number: int) -> None:
        self.client.machine.forget(self.requests.pop(number % len(self.requests)))

    @rule()
    def lose(self) -> None:
        for command in self.client.sent:
            if command.id and command.id.startswith("r"):
                self.times_sent[command.id] = self.times_sent.get(command.id, 0) + 1
        self.client.lose()

    @rule(seconds=st.sampled_from([0.0, 0.3, 20.0]), fails=st.sampled_from(["", "", "token", "connect", "welcome"]))
    def wait(self, seconds: float, fails: str) -> None:
        self.client.wait(seconds)
        if fails and any(isinstance(effect, AskToken) for effect in self.client.effects):
            self._fail(fails)
        else:
            self._connect()

    def _fail(self, when: str) -> None:
        """The attempt fails: before there is a WebSocket, or before the welcome."""
        machine, now = self.client.machine, self.client.now
        self.client.effects.clear()
        if when == "token":
            self.client.perform(machine.not_authorized(OSError("no network"), now))
            return
        self.client.perform(machine.authorized(None))
        self.client.take(Connect)
        if when == "welcome":
            self.client.perform(machine.opened(JSON.subprotocol, now))
        self.client.lose(fanline.ConnectionRefused("nothing listens"))

    def _connect(self) -> None:
        tokens = [effect for effect in self.client.effects if isinstance(effect, AskToken)]
        assert len(tokens) <= 1, "one attempt at a time"
        self.client.effects = [*tokens]
        if tokens:
            self.client.connect()
        assert not [effect for effect in self.client.effects if isinstance(effect, Connect)]

    def teardown(self) -> None:
        while self.client.sent:
            self.answer(4)
        if not self.ready:  # the longest pause between two attempts
            self.client.wait(15.0)
            self._connect()
        while self.client.sent:
            self.answer(4)
        assert self.ready
        for request in self.requests:
            assert request.settled
            name, kind = request.command.id or "", request.command.type
            assert self.woken.count(name) == 1, "settled once"
            if kind not in SAFE:
                assert self.times_sent.get(name, 0) <= 1, "not done twice"
            else:
                assert request.error is None


def test_every_state_is_reached_and_only_the_end_has_no_way_out() -> None:
    targets = {target for row in CONNECTION_TRANSITIONS.values() for target in row.values()}
    assert targets | {ConnectionState.NEW} == set(ConnectionState)
    assert [state for state, row in CONNECTION_TRANSITIONS.items() if not row] == [ConnectionState.ENDED]


TestCommands = Commands.TestCase
TestCommands.settings = settings(max_examples=settings().max_examples, stateful_step_count=30)
