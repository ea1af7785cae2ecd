"""Who is left out of a message: the connection that `n` names, and whoever hears the same on another channel."""

from typing import Any

import msgspec
import pytest

from fanline.engine.bus.stored import Epoch, StreamPosition
from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.hub import Hub
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.sending.outbox import Outbox
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.dialects.encoding import Encoding, encoding_of
from fanline.protocol.envelope import Envelope
from tests.engine.parts import idle_outbox, make_hub

IN_JSON, IN_CBOR = encoding_of(JSON, False), encoding_of(CBOR, False)
Received = dict[Outbox, list[tuple[str, Any]]]


def payload(data: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"v": 1, "t": "pub", "d": data, **fields})


def copy(data: Any, *via: str) -> bytes:
    """A copy of an event that was published to the channels `via` before."""
    return payload(data, x={"via": list(via), "task_id": "42"})


def position(offset: int, previous: int = 0) -> StreamPosition:
    return StreamPosition(offset, previous, "2026-01-01T00:00:00Z")


def received(hub: Hub) -> Received:
    """Outbox -> (channel, data) of what is pending for it, in order."""
    found: Received = {}
    for batch in hub.take_dirty():
        for outbox in batch.members:
            envelopes = [message.envelope for message in batch.messages.messages]
            found.setdefault(outbox, []).extend((each.channel or "", each.value) for each in envelopes)
    hub.flushed()
    return found


class Stage:
    """A hub with connections whose public ids are their names."""

    def __init__(self, namespaces: Namespaces | None = None) -> None:
        self.connections: dict[str, Outbox] = {}
        self.hub, self.counters = make_hub(namespaces, everyone=self._everyone, find=self.connections.get)

    def _everyone(self) -> list[tuple[Encoding, Outbox]]:
        return [(IN_JSON, outbox) for outbox in self.connections.values()]

    def viewer(self, name: str, *channels: str, cbor: bool = False) -> Outbox:
        """A connection that has subscribed to some channels."""
        outbox = self.connections.setdefault(name, idle_outbox())
        for channel in channels:
            self.open(channel).add(IN_CBOR if cbor else IN_JSON, outbox)
        return outbox

    def open(self, name: str) -> Channel:
        channel = self.hub.open(name)
        if channel.durable is not None and channel.interest == 1:
            channel.durable.open(Epoch("e"), 0)
        return channel


# --- n --------------------------------------------------------------------------------------------------------------


def test_the_connection_that_is_named_is_left_out_and_no_other() -> None:
    stage = Stage()
    stage.viewer("sender", "typing:1")
    other, in_cbor = stage.viewer("other", "typing:1"), stage.viewer("in cbor", "typing:1", cbor=True)
    stage.hub.receive("typing:1", payload(1, n="sender"), None)
    assert received(stage.hub) == {other: [("typing:1", 1)], in_cbor: [("typing:1", 1)]}


@pytest.mark.parametrize("named", ["unknown", "elsewhere", ""])
def test_naming_a_connection_that_does_not_hear_the_channel_leaves_out_nobody(named: str) -> None:
    stage = Stage()
    stage.viewer("elsewhere", "typing:2")
    viewer = stage.viewer("viewer", "typing:1")
    stage.hub.receive("typing:1", payload(1, n=named), None)
    assert received(stage.hub) == {viewer: [("typing:1", 1)]}


def test_what_a_connection_is_left_out_of_is_not_a_hole_in_its_chain() -> None:
    stage = Stage()
    sender = stage.viewer("sender", "session:1")
    stage.hub.receive("session:1", payload(1), position(3))
    stage.hub.receive("session:1", payload(2, n="sender"), position(5, 3))
    stage.hub.receive("session:1", payload(3), position(8, 5))
    (batch,) = stage.hub.take_dirty()
    assert batch.members == [sender]
    assert [(each.envelope.offset, each.envelope.previous) for each in batch.messages.messages] == [(3, 0), (8, 3)]


def test_a_message_that_was_held_while_the_channel_recovered_leaves_out_the_same_connection() -> None:
    stage = Stage()
    stage.viewer("sender", "session:1")
    other = stage.viewer("other", "session:1")
    durable = next(iter(stage.hub.durable_channels()))
    durable.doubt(0.0)
    stage.hub.receive("session:1", payload(1, n="sender"), position(3))
    assert received(stage.hub) == {}
    stage.hub.deliver(durable, durable.recover([]))
    assert received(stage.hub) == {other: [("session:1", 1)]}


# --- copies ---------------------------------------------------------------------------------------------------------


def test_a_viewer_of_several_channels_gets_an_event_once_and_the_others_too() -> None:
    stage = Stage()
    of_all = stage.viewer("of all", "task:42", "user:5", "project:7")
    of_two = stage.viewer("of two", "user:5", "project:7")
    of_task, of_project = stage.viewer("of the task", "task:42"), stage.viewer("of the project", "project:7")
    stage.hub.receive("task:42", payload("event"), position(1))
    stage.hub.receive("user:5", copy("event", "task:42"), position(1))
    stage.hub.receive("project:7", copy("event", "task:42", "user:5"), position(1))
    assert received(stage.hub) == {
        of_all: [("task:42", "event")],
        of_two: [("user:5", "event")],
        of_task: [("task:42", "event")],
        of_project: [("project:7", "event")],
    }


def test_a_copy_of_what_comes_on_a_channel_that_nobody_hears_here_reaches_everyone() -> None:
    stage = Stage()
    viewer = stage.viewer("viewer", "project:7")
    stage.hub.receive("project:7", copy("event", "task:42", "not a channel"), position(1))
    assert received(stage.hub) == {viewer: [("project:7", "event")]}


def test_a_connection_hears_an_earlier_channel_also_while_it_catches_up_with_it() -> None:
    stage = Stage()
    viewer = stage.viewer("viewer", "project:7")
    earlier = stage.open("task:42")
    earlier.await_log(viewer)
    stage.hub.receive("project:7", copy("event", "task:42"), position(1))
    assert received(stage.hub) == {}
    earlier.stop_awaiting(viewer)
    stage.hub.receive("project:7", copy("event", "task:42"), position(2, 1))
    assert received(stage.hub) == {viewer: [("project:7", "event")]}


def test_after_a_copy_that_was_left_out_the_chain_is_whole() -> None:
    stage = Stage()
    viewer = stage.viewer("viewer", "task:42", "project:7")
    stage.hub.receive("project:7", copy("event", "task:42"), position(4))
    assert received(stage.hub) == {}
    stage.hub.receive("project:7", payload("news"), position(9, 4))
    (batch,) = stage.hub.take_dirty()
    assert batch.members == [viewer]
    assert [each.envelope.previous for each in batch.messages.messages] == [0]


# --- whole namespaces -----------------------------------------------------------------------------------------------


def offsets_of(hub: Hub) -> list[tuple[str, int | None, int | None]]:
    """Type, offset and previous offset of all that is pending."""
    found = [message.envelope for batch in hub.take_dirty() for message in batch.messages.messages]
    return [(each.type, each.offset, each.previous) for each in found]


def test_a_viewer_of_a_namespace_gets_each_message_with_its_own_channel_and_offset_and_no_chain() -> None:
    stage = Stage()
    viewer = stage.viewer("viewer", "project:*")
    for number, channel in enumerate(("project:1", "project:2", "project:1"), 4):
        stage.hub.overhear(channel, payload(number), position(number, number - 1))
    batches = stage.hub.take_dirty()
    assert [batch.members for batch in batches] == [[viewer]]
    sent = [message.envelope for message in batches[0].messages.messages]
    assert [(each.channel, each.offset, each.previous) for each in sent] == [
        ("project:1", 4, None),
        ("project:2", 5, None),
        ("project:1", 6, None),
    ]


def test_an_ephemeral_message_has_no_offset() -> None:
    stage = Stage()
    stage.viewer("viewer", "typing:*")
    stage.hub.overhear("typing:1", payload(1), None)
    assert offsets_of(stage.hub) == [("pub", None, None)]


def test_a_tasks_events_come_unfolded() -> None:
    stage = Stage()
    stage.viewer("viewer", "task:*")
    event = payload({"percent": 50}, e="task_progress", ts=5)
    stage.hub.overhear("task:42", event, position(1))
    (batch,) = stage.hub.take_dirty()
    assert batch.messages.messages[0].envelope.value == {"percent": 50}


def test_who_has_subscribed_to_the_channel_itself_gets_its_messages_there_alone() -> None:
    stage = Stage()
    both, of_all = stage.viewer("both", "project:*", "project:7"), stage.viewer("of all", "project:*")
    for channel in ("project:7", "project:8"):
        stage.hub.overhear(channel, payload(1), position(1))
    stage.hub.receive("project:7", payload(1), position(1))
    assert received(stage.hub) == {
        both: [("project:8", 1), ("project:7", 1)],
        of_all: [("project:7", 1), ("project:8", 1)],
    }


def test_who_catches_up_with_the_channel_itself_gets_its_messages_there_alone() -> None:
    stage = Stage()
    both = stage.viewer("both", "project:*")
    stage.open("project:7").await_log(both)
    stage.hub.overhear("project:7", payload(1), position(1))
    assert received(stage.hub) == {}


def test_a_copy_is_left_out_for_those_who_hear_an_earlier_channel_by_its_namespace_and_the_other_way_round() -> None:
    stage = Stage()
    of_tasks = stage.viewer("of tasks", "task:*", "project:7")
    of_projects = stage.viewer("of projects", "task:42", "project:*")
    of_one_namespace = stage.viewer("of one namespace", "project:*")
    stage.hub.receive("task:42", payload(1), position(1))
    stage.hub.overhear("task:42", payload(1), position(1))
    second, third = copy(1, "task:42"), copy(1, "task:42", "project:7")
    stage.hub.receive("project:7", second, position(1))
    stage.hub.overhear("project:7", second, position(1))
    stage.hub.overhear("project:8", third, position(2))
    assert received(stage.hub) == {
        of_tasks: [("task:42", 1)],
        of_projects: [("task:42", 1)],
        of_one_namespace: [("project:7", 1)],
    }


def test_the_connection_that_is_named_is_left_out_of_its_namespace_too() -> None:
    stage = Stage()
    stage.viewer("sender", "typing:*")
    other = stage.viewer("other", "typing:*")
    stage.hub.overhear("typing:1", payload(1, n="sender"), None)
    assert received(stage.hub) == {other: [("typing:1", 1)]}


def test_nothing_is_read_for_a_namespace_that_nobody_hears() -> None:
    stage = Stage()
    stage.hub.overhear("typing:1", b"not JSON", None)
    assert (stage.counters.messages_in, stage.counters.messages_bad) == (0, 0)
    pattern = stage.open("typing:*")
    stage.hub.overhear("typing:1", b"not JSON", None)
    assert (stage.counters.messages_in, stage.counters.messages_bad) == (1, 1)
    stage.hub.close(pattern)
    stage.hub.overhear("typing:1", b"not JSON", None)
    assert (stage.counters.messages_in, stage.counters.messages_bad) == (1, 1)


def test_after_an_outage_those_who_hear_whole_namespaces_are_told_and_nobody_else() -> None:
    stage = Stage()
    of_projects, of_typing = stage.viewer("of projects", "project:*"), stage.viewer("of typing", "typing:*", cbor=True)
    stage.viewer("of one", "project:7", "typing:1")
    called = []
    stage.hub.on_dirty = lambda: called.append(1)
    stage.hub.bus_is_back()
    assert received(stage.hub) == {
        of_projects: [("project:*", {"reason": "outage"})],
        of_typing: [("typing:*", {"reason": "outage"})],
    }
    assert called


def test_a_message_that_cannot_be_encoded_is_a_gap_of_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    viewer = stage.viewer("viewer", "typing:*")
    encode = type(IN_JSON).encode

    def fail_once(self: Any, envelope: Envelope) -> bytes:
        if envelope.type == "pub":
            raise ValueError("broken")
        return encode(self, envelope)

    monkeypatch.setattr(type(IN_JSON), "encode", fail_once)
    stage.hub.overhear("typing:1", payload(1), None)
    assert received(stage.hub) == {viewer: [("typing:*", {"reason": "fault", "count": 1})]}


# --- urgent messages ------------------------------------------------------------------------------------------------

ALARM = Namespaces({"alarm": Namespace(everywhere=True)})


def test_an_urgent_message_reaches_each_connection_once_whatever_it_hears_and_not_the_one_that_is_named() -> None:
    stage = Stage(ALARM)
    stage.viewer("sender", "alarm:fire")
    by_channel, by_namespace = stage.viewer("by channel", "alarm:fire"), stage.viewer("by namespace", "alarm:*")
    otherwise, earlier = stage.viewer("otherwise"), stage.viewer("earlier", "project:7")
    urgent = payload("out!", pr=9, n="sender", x={"via": ["project:7"]})
    stage.hub.receive("alarm:fire", urgent, None)
    stage.hub.overhear("alarm:fire", urgent, None)
    once = [("alarm:fire", "out!")]
    assert received(stage.hub) == {by_channel: once, by_namespace: once, otherwise: once}
    assert earlier in stage.connections.values()
