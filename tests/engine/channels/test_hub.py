"""The hub's answers, and the flusher that empties it: pure bookkeeping, checked against a plain model."""

import socket

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import assert_no_checkpoints

from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.hub import Hub
from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespaces
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.dialects.encoding import Encoding, encoding_of
from fanline.protocol.websocket.frames import FrameReader, Opcode

JSON_WIRE, CBOR_WIRE = encoding_of(JSON, False), encoding_of(CBOR, False)


class Peer:
    """An outbox on a real socket, and what has come out at the other end."""

    def __init__(self, nursery: trio.Nursery, counters: Counters) -> None:
        near, self._far = socket.socketpair()
        near.setblocking(False)
        self._far.setblocking(False)
        self._near = near
        shared = OutboxShared(nursery, counters, max_bytes=1 << 20, max_messages=4096)
        self.outbox = Outbox(near, trio.CancelScope(), shared)
        self._reader = FrameReader(1 << 20, from_client=False)

    def received(self) -> list[bytes]:
        """The payloads that have arrived since the last call."""
        try:
            data = self._far.recv(1 << 20)
        except BlockingIOError:
            return []
        return [message.payload for message in self._reader.feed(data)]

    def close(self) -> None:
        self._near.close()
        self._far.close()


def make_hub() -> tuple[Hub, Counters]:
    counters = Counters()
    return Hub(counters, lambda: 1000, Namespaces()), counters


operations = st.lists(
    st.tuples(st.sampled_from(["sub", "activate", "unsub"]), st.integers(0, 3), st.sampled_from("abc")), max_size=40
)


@given(operations=operations)
@settings(max_examples=200)
def test_first_and_last_are_answered_once_per_life_of_a_channel(operations: list[tuple[str, int, str]]) -> None:
    async def check() -> None:
        async with trio.open_nursery() as nursery:
            hub, counters = make_hub()
            peers = [Peer(nursery, counters) for _ in range(4)]
            counted: set[tuple[int, str]] = set()
            active: set[tuple[int, str]] = set()
            joined: set[str] = set()
            for verb, number, name in operations:
                pair, channel = (number, name), f"c:{name}"
                if verb == "sub" and pair not in counted:
                    first = hub.subscribe(channel)
                    assert first == (channel not in joined)
                    joined.add(channel)
                    counted.add(pair)
                elif verb == "activate" and pair in counted - active:
                    hub.activate(channel, JSON_WIRE if number % 2 else CBOR_WIRE, peers[number].outbox)
                    active.add(pair)
                elif verb == "unsub" and pair in counted:
                    counted.discard(pair)
                    active.discard(pair)
                    last = hub.unsubscribe(channel, peers[number].outbox)
                    assert last == (name not in {other for _, other in counted})
                    if last:
                        joined.discard(channel)
                assert [p.outbox.subscriptions for p in peers] == [sum(n == i for n, _ in active) for i in range(4)]
                assert counters.channels == len(joined)
            for peer in peers:
                peer.close()

    trio.run(check)


async def test_receive_and_the_subscription_verbs_never_give_up_control() -> None:
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        peer = Peer(nursery, counters)
        with assert_no_checkpoints():
            hub.subscribe("c:a")
            hub.activate("c:a", JSON_WIRE, peer.outbox)
            hub.receive("c:a", b"1", None)
            hub.take_dirty()
            hub.unsubscribe("c:a", peer.outbox)
        peer.close()


async def test_a_message_is_encoded_once_per_dialect_and_shared_by_all_members() -> None:
    encoded: list[str] = []

    class Counting(type(JSON)):  # type: ignore[misc]  # a dialect that tells when it is asked
        def encode(self, envelope: object) -> bytes:
            encoded.append("json")
            return b"x"

    encoding = Encoding(Counting(), deflated=False)
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        peers = [Peer(nursery, counters) for _ in range(10)]
        for peer in peers:
            hub.subscribe("c:a")
            hub.activate("c:a", encoding, peer.outbox)
        hub.receive("c:a", b"1", None)
        hub.receive("c:a", b"2", None)
        (batch,) = hub.take_dirty()
        assert (len(batch.members), len(batch.messages.items), encoded) == (10, 2, ["json", "json"])
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("coalesce", [0.0, 5.0])
async def test_a_flush_delivers_every_channel_to_its_subscribers_in_order(coalesce: float) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            hub, counters = make_hub()
            flusher = Flusher(hub, counters, coalesce_ms=coalesce)
            both, single = Peer(nursery, counters), Peer(nursery, counters)
            for peer, channels in ((both, ("c:a", "c:b")), (single, ("c:a",))):
                for channel in channels:
                    hub.subscribe(channel)
                    hub.activate(channel, JSON_WIRE, peer.outbox)
            nursery.start_soon(flusher.run)
            for number in range(3):
                for channel in ("c:a", "c:b", "c:nobody"):
                    hub.receive(channel, b"%d" % number, None)
            await trio.testing.wait_all_tasks_blocked(0.05)
            a, b = ([b'{"v":1,"t":"pub","c":"c:%s","d":%d,"ts":1000}' % (n, i) for i in range(3)] for n in (b"a", b"b"))
            assert both.received() == a + b
            assert single.received() == a
            assert (counters.messages_in, counters.deliveries) == (9, 9)
            nursery.cancel_scope.cancel()
        both.close()
        single.close()


async def test_a_subscriber_who_leaves_or_comes_during_a_flush_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.engine.slices.SLICE_SECONDS", 0.0)  # a turn of the loop after every chunk
    monkeypatch.setattr("fanline.engine.channels.flusher._CHECK_EVERY", 1)
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        flusher = Flusher(hub, counters, coalesce_ms=0)
        peers = [Peer(nursery, counters) for _ in range(6)]
        for peer in peers[:5]:
            hub.subscribe("c:a")
            hub.activate("c:a", JSON_WIRE, peer.outbox)
        hub.receive("c:a", b"1", None)

        async def meddle() -> None:
            hub.unsubscribe("c:a", peers[0].outbox)
            hub.subscribe("c:a")
            hub.activate("c:a", JSON_WIRE, peers[5].outbox)

        nursery.start_soon(meddle)
        await flusher.flush()
        assert [len(peer.received()) for peer in peers[1:]] == [1, 1, 1, 1, 0]
        for peer in peers:
            peer.close()


def test_opcode_of_each_dialect_matches_its_frames() -> None:
    assert (JSON.opcode, CBOR.opcode) == (Opcode.TEXT, Opcode.BINARY)
