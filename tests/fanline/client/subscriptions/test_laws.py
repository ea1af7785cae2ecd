"""The law of the client's subscriptions, under random sequences of everything that can happen to them."""

from collections import deque
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import fanline
from fanline.client.subscriptions.start import StartPosition
from fanline.protocol.envelope import Envelope
from fanline.protocol.messages.commands import Subscribe
from tests.fanline.client.subscriptions.model_server import CheckedLocal, ModelServer
from tests.fanline.client.subscriptions.recording_shell import NOW, SNAPSHOT, RecordingShell

_ALL = 10**6
_ROUNDS = 200  # more than the slowest way to rest takes; what has not come to rest by then asks for ever
STARTS = st.sampled_from(
    [
        NOW,
        SNAPSHOT,
        SNAPSHOT,
        StartPosition(history=Subscribe(start=True)),
        StartPosition(history=Subscribe(last=1)),
        StartPosition(history=Subscribe(last=3)),
    ]
)
CODES = st.lists(st.sampled_from(["unavailable", "unavailable", "bad_offset", "permission_denied"]), max_size=3)
SESSIONS = st.sampled_from([None, "unknown", "up to date", "up to date", "behind"])
"""What the server has noted of the session that is resumed; None: the client names none."""
ROUTED = st.sampled_from([False, False, True])
Flow = tuple[int, int] | None
FLOW = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 2), st.integers(0, 4)))
"""What arrives after a step: so many commands, then so many envelopes; None: everything."""


class Subscriptions(RuleBasedStateMachine):
    """Each CheckedLocal asserts the law with every item; at the end everything must have come."""

    @initialize(start=STARTS, stored=st.integers(0, 4), tasks=st.booleans())
    def begin(self, start: StartPosition, stored: int, tasks: bool) -> None:
        self.server = ModelServer(tasks=tasks)
        self.shell = RecordingShell()
        self.connected = True
        self.locals: list[CheckedLocal] = []
        for _ in range(stored):
            self.server.publish(1)
        self._enter(NOW, None)
        self._enter(start, None)

    @property
    def sent(self) -> deque[Envelope]:
        return self.shell.sent

    # --- local subscriptions ------------------------------------------------------------------------------------

    @rule(start=STARTS, flow=FLOW)
    def subscribe(self, start: StartPosition, flow: Flow) -> None:
        self._enter(start, flow)

    @rule(back=st.integers(0, 4), life=st.sampled_from([0, 0, 1]), flow=FLOW)
    def subscribe_from_a_position(self, back: int, life: int, flow: Flow) -> None:
        epoch = str(max(1, self.server.life - life))
        self._enter(StartPosition(fanline.Position(max(0, self.server.last - back), epoch)), flow)

    def _enter(self, start: StartPosition, flow: Flow) -> None:
        if self.server.tasks or not start.snapshot:
            self.locals.append(self.shell.enter(CheckedLocal(self.server, start)))
        self._flow(flow)

    @precondition(lambda self: len(self.locals) > 2)
    @rule(number=st.integers(0, 9))
    def unsubscribe(self, number: int) -> None:
        self.shell.unsubscribe(self.locals.pop(number % len(self.locals)))

    # --- the channel ----------------------------------------------------------------------------------------------

    @rule(step=st.integers(1, 2), flow=FLOW)
    def publish(self, step: int, flow: Flow) -> None:
        self.server.publish(step)
        self._flow(flow)

    @rule(expire=st.booleans(), codes=CODES, flow=FLOW)
    def lose_a_message(self, expire: bool, codes: list[str], flow: Flow) -> None:
        self.server.refusals.extend(codes)
        self.server.publish(1, lost=True)
        if expire:
            self.server.expire(9)
        self.server.publish(1)
        self._flow(flow)

    @rule(flow=FLOW)
    def publish_after_what_the_server_does_not_know(self, flow: Flow) -> None:
        self.server.publish(3, unknown=True)
        self._flow(flow)

    @rule(count=st.integers(1, 3))
    def expire(self, count: int) -> None:
        self.server.expire(count)

    @rule(flow=FLOW)
    def recreate(self, flow: Flow) -> None:
        self.server.recreate()
        self._flow(flow)

    @rule(number=st.integers(0, 5), flow=FLOW)
    def repeat(self, number: int, flow: Flow) -> None:
        self.server.repeat(number)
        self._flow(flow)

    # --- the wire -------------------------------------------------------------------------------------------------

    @rule(published=st.integers(0, 2), expire=st.booleans(), codes=CODES, session=SESSIONS, routed=ROUTED, flow=FLOW)
    def reconnect(
        self, published: int, expire: bool, codes: list[str], session: str | None, routed: bool, flow: Flow
    ) -> None:
        noted = self.server.subscribed
        self.server.session = {"up to date": noted, "behind": not noted}.get(session or "")
        self.server.disconnect()
        self.shell.disconnect()
        for _ in range(published):
            self.server.publish(1)
        if expire:
            self.server.expire(9)
        self.server.refusals.extend(codes)
        if routed:
            self.server.join_route()
        self.shell.connect(None if session is None else "s")
        self._flow(flow)

    @rule(codes=CODES)
    def refuse_the_next_subs(self, codes: list[str]) -> None:
        self.server.refusals.extend(codes)

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0]), flow=FLOW)
    def wait(self, seconds: float, flow: Flow) -> None:
        self.shell.wait(seconds)
        self._flow(flow)

    def _flow(self, flow: Flow) -> None:
        assert ("sub", "sub") not in pairwise(command.type for command in self.sent), "one at a time"
        commands, envelopes = flow or (1, _ALL)
        for _ in range(min(commands, len(self.sent))):
            self.server.perform(self.sent.popleft())
        for _ in range(min(envelopes, len(self.server.outgoing))):
            self.shell.hear(self.server.outgoing.popleft())
        if flow is None and (self.sent or self.server.outgoing):
            self._flow(None)

    # --- the law --------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        self.server.refusals.clear()
        self._come_to_rest()
        if self.server.tail_lost:
            self.server.publish(1)
            self._come_to_rest()
        for local in self.locals:
            if local.error is None:
                local.check_complete()
        for local in self.locals:
            self.shell.unsubscribe(local)
        self._flow(None)
        assert self.server.routed or not self.server.subscribed, (
            "a channel that no local subscription wants is unsubscribed"
        )

    def _come_to_rest(self) -> None:
        for _ in range(_ROUNDS):
            self._flow(None)
            self.shell.wait(5)
            if not self.sent:
                return
        raise AssertionError("it asks for ever")


TestSubscriptions = Subscriptions.TestCase
TestSubscriptions.settings = settings(max_examples=3 * settings().max_examples, stateful_step_count=20)
