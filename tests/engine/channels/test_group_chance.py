"""A group under random messages, omissions, comers and goers: no member ever sees a hole, or what is not for it."""

from hypothesis import given
from hypothesis import strategies as st

from fanline.engine.channels.group import Group
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope, MessageType, decode_json
from fanline.protocol.websocket.frames import FrameReader
from tests.engine.parts import idle_outbox

JSON_FRAMES = encoding_of(JSON, deflated=False)
STEPS = st.sampled_from(["message", "begin_epoch", "gap", "flush", "come", "go"])


class Viewer:
    """A client that keeps to the rule of docs/reference/protocol.md, and what it is to get."""

    def __init__(self) -> None:
        self.outbox = idle_outbox()
        self.position = 0
        self.epoch = ""
        self.due: list[tuple[int, str]] = []
        self.got: list[tuple[int, str]] = []

    def begin(self, offset: int, epoch: str) -> None:
        self.position, self.epoch, self.due, self.got = offset, epoch, [], []

    def take(self, envelope: Envelope) -> None:
        self.epoch = envelope.epoch or self.epoch
        if envelope.type == MessageType.GAP:
            self.position = envelope.value["to"]
            return
        assert envelope.previous is not None
        assert envelope.offset is not None
        assert envelope.previous <= self.position, "a hole"
        self.position = envelope.offset
        self.got.append((envelope.offset, self.epoch))


class Stage:
    """A group, the stream of its channel, and all who may hear it."""

    def __init__(self) -> None:
        self.group = Group(JSON_FRAMES, Namespace(durable=True))
        self.viewers = [Viewer() for _ in range(4)]
        self.by_outbox = {viewer.outbox: viewer for viewer in self.viewers}
        self.offset = 0
        self.epoch = "e0"

    def message(self, chosen: set[int]) -> None:
        self._publish(chosen, told=None)

    def begin_epoch(self, chosen: set[int]) -> None:
        self.epoch = f"e{self.offset}"
        self._publish(chosen, told=self.epoch)

    def _publish(self, chosen: set[int], told: str | None) -> None:
        previous, self.offset = self.offset, self.offset + 1 + len(chosen)
        members = [viewer for viewer in self.viewers if viewer.outbox in self.group]
        left_out = {viewer.outbox for viewer in members} & {self.viewers[number].outbox for number in chosen}
        message = Envelope("pub", channel="c:a", offset=self.offset, previous=previous, epoch=told)
        self.group.append(message, left_out)
        for viewer in members:
            if viewer.outbox not in left_out:
                viewer.due.append((self.offset, self.epoch))

    def gap(self, _: set[int]) -> None:
        data = {"from": self.offset + 1, "to": self.offset + 2, "reason": "expired"}
        self.offset += 2
        self.group.append(Envelope("gap", channel="c:a", epoch=self.epoch, data=data))

    def come(self, chosen: set[int]) -> None:
        for viewer in map(self.viewers.__getitem__, chosen):
            if viewer.outbox not in self.group:
                self.group.add(viewer.outbox)
                viewer.begin(self.offset, self.epoch)

    def go(self, chosen: set[int]) -> None:
        for viewer in map(self.viewers.__getitem__, chosen):
            if viewer.outbox in self.group:
                self.group.discard(viewer.outbox)
                viewer.begin(0, "")

    def flush(self, _: set[int]) -> None:
        if self.group.pending:
            for batch in self.group.take(set()):
                for outbox in batch.members:
                    self._send(outbox, batch.messages.joined())
        for viewer in self.viewers:
            assert viewer.got == viewer.due

    def _send(self, outbox: Outbox, data: bytes) -> None:
        for message in FrameReader(1 << 20, from_client=False).feed(data):
            self.by_outbox[outbox].take(decode_json(message.payload))


@given(st.lists(st.tuples(STEPS, st.sets(st.integers(0, 3))), max_size=40))
def test_no_member_ever_sees_a_hole_or_misses_an_epoch_or_gets_what_is_not_for_it(
    steps: list[tuple[str, set[int]]],
) -> None:
    stage = Stage()
    for name, chosen in [*steps, ("flush", set())]:
        getattr(stage, name)(chosen)
