"""The hub's answers, and the flusher that empties it: pure bookkeeping, checked against a plain model."""

import socket
from collections.abc import Callable

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, assert_no_checkpoints

from fanline.engine.channels.audience.channel import Channel
from fanline.engine.channels.flusher import Flusher
from fanline.engine.counters import Counters
from fanline.engine.sending.life import Life
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.protocol.dialects import CBOR, JSON
from fanline.protocol.dialects.encoding import Encoding, encoding_of
from fanline.protocol.websocket.frames import FrameReader, Opcode
from tests.engine.parts import make_hub

JSON_ENCODING, CBOR_ENCODING = encoding_of(JSON, False), encoding_of(CBOR, False)


class Peer:
    """An outbox on a real socket, and what has come out at the other end."""

    def __init__(self, nursery: trio.Nursery, counters: Counters) -> None:
        near, self._far = socket.socketpair()
        near.setblocking(False)
        self._far.setblocking(False)
        self._near = near
        shared = OutboxShared(nursery, counters, max_bytes=1 << 20, max_messages=4096)
        self.outbox = Outbox(near, Life(), shared)
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
            opened: dict[str, Channel] = {}
            for verb, number, name in operations:
                pair, channel = (number, name), f"c:{name}"
                encoding = JSON_ENCODING if number % 2 else CBOR_ENCODING
                if verb == "sub" and pair not in counted:
                    opened[channel] = hub.open(channel)
                    assert (opened[channel].interest == 1) == (channel not in joined)
                    joined.add(channel)
                    counted.add(pair)
                elif verb == "activate" and pair in counted - active:
                    opened[channel].add(encoding, peers[number].outbox)
                    active.add(pair)
                elif verb == "unsub" and pair in counted:
                    counted.discard(pair)
                    if pair in active:
                        opened[channel].discard(encoding, peers[number].outbox)
                    active.discard(pair)
                    last = hub.close(opened[channel])
                    assert last == (name not in {other for _, other in counted})
                    if last:
                        joined.discard(channel)
                        assert opened[channel].groups == ()
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
            channel = hub.open("c:a")
            channel.add(JSON_ENCODING, peer.outbox)
            hub.receive("c:a", b"1", None)
            hub.take_dirty()
            channel.discard(JSON_ENCODING, peer.outbox)
            hub.close(channel)
        peer.close()


async def test_a_message_is_encoded_once_per_dialect_and_shared_by_all_members() -> None:  # S3-44, S4-31
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
            hub.open("c:a").add(encoding, peer.outbox)
        hub.receive("c:a", b"1", None)
        hub.receive("c:a", b"2", None)
        (batch,) = hub.take_dirty()
        assert (len(batch.members), len(batch.messages.messages), encoded) == (10, 2, ["json", "json"])
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
                    hub.open(channel).add(JSON_ENCODING, peer.outbox)
            nursery.start_soon(flusher.run)
            for number in range(3):
                for channel in ("c:a", "c:b", "c:nobody"):
                    hub.receive(channel, b"%d" % number, None)
            flusher.after_burst()
            await trio.testing.wait_all_tasks_blocked(0.05)
            a, b = ([b'{"v":1,"t":"pub","c":"c:%s","d":%d,"ts":1000}' % (n, i) for i in range(3)] for n in (b"a", b"b"))
            assert both.received() == a + b
            assert single.received() == a
            assert (counters.messages_in, counters.deliveries) == (9, 9)
            nursery.cancel_scope.cancel()
        both.close()
        single.close()


async def test_a_little_is_pushed_at_the_end_of_its_burst_and_more_is_left_to_the_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fanline.engine.channels.flusher._AT_ONCE", 2)
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        flusher = Flusher(hub, counters, coalesce_ms=0)
        peers = [Peer(nursery, counters) for _ in range(3)]
        for peer, channel in zip(peers, ("c:few", "c:many", "c:many"), strict=True):
            hub.open(channel).add(JSON_ENCODING, peer.outbox)
        hub.receive("c:few", b"1", None)
        flusher.after_burst()
        assert [len(peer.received()) for peer in peers] == [1, 0, 0]
        hub.receive("c:few", b"2", None)
        hub.receive("c:many", b"3", None)
        flusher.after_burst()
        assert [len(peer.received()) for peer in peers] == [0, 0, 0]
        await flusher.flush()
        assert [len(peer.received()) for peer in peers] == [1, 1, 1]
        for peer in peers:
            peer.close()


async def test_a_rest_ends_when_much_is_pending(monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock) -> None:
    monkeypatch.setattr("fanline.engine.channels.flusher._REST_BYTES", 1000)
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        flusher = Flusher(hub, counters, coalesce_ms=1000)
        peer, flush = Peer(nursery, counters), flusher.flush
        hub.open("c:a").add(JSON_ENCODING, peer.outbox)

        async def slow_flush() -> None:
            await flush()
            mock_clock.jump(1)

        monkeypatch.setattr(flusher, "flush", slow_flush)
        nursery.start_soon(flusher.run)

        async def receive(*sizes: int) -> int:
            for size in sizes:
                hub.receive("c:a", b'"%s"' % (b"x" * size), None)
                flusher.after_burst()
            await trio.testing.wait_all_tasks_blocked()
            return len(peer.received())

        assert [await receive(10), await receive(10), await receive(500, 500)] == [1, 0, 3]
        assert await receive(10) == 0
        mock_clock.jump(1)
        assert await receive() == 1
        nursery.cancel_scope.cancel()
    peer.close()


async def test_a_burst_does_not_overtake_a_flush_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        peer = Peer(nursery, counters)
        hub.open("c:a").add(JSON_ENCODING, peer.outbox)
        flusher = Flusher(hub, counters, coalesce_ms=0)
        seen = list[int]()

        def meddle() -> None:
            if not seen:
                seen.append(len(peer.received()))
                hub.receive("c:a", b"2", None)
                flusher.after_burst()
                seen.append(len(peer.received()))

        monkeypatch.setattr("fanline.engine.channels.flusher.Slices", Interrupting(meddle))
        monkeypatch.setattr("fanline.engine.channels.flusher._CHECK_EVERY", 1)
        hub.receive("c:a", b"1", None)
        await flusher.flush()
        assert seen == [1, 0]
        await flusher.flush()
        assert len(peer.received()) == 1
        peer.close()


class Interrupting:
    """Stands in for the flusher's slices: between two portions, what was asked for happens."""

    def __init__(self, meddle: Callable[[], None]) -> None:
        self._meddle = meddle

    def __call__(self) -> "Interrupting":
        return self

    async def breathe(self) -> None:
        self._meddle()


async def test_a_subscriber_who_leaves_during_a_flush_gets_no_more_of_it_and_one_who_comes_gets_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        peers = [Peer(nursery, counters) for _ in range(4)]
        channel = hub.open("c:a")
        for peer in peers[:3]:
            channel.add(JSON_ENCODING, peer.outbox)
        turns: list[list[int]] = []

        def meddle() -> None:
            turns.append([len(peer.received()) for peer in peers])
            if len(turns) == 1:
                channel.discard(JSON_ENCODING, peers[0].outbox)
                channel.discard(JSON_ENCODING, peers[1].outbox)
                channel.add(JSON_ENCODING, peers[1].outbox)  # it resumes: its history has this message
                channel.add(JSON_ENCODING, peers[3].outbox)

        monkeypatch.setattr("fanline.engine.channels.flusher.Slices", Interrupting(meddle))
        monkeypatch.setattr("fanline.engine.channels.flusher._CHECK_EVERY", 1)
        flusher = Flusher(hub, counters, coalesce_ms=0)
        hub.receive("c:a", b"1", None)
        await flusher.flush()
        assert turns == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
        hub.receive("c:a", b"2", None)
        await flusher.flush()
        assert [sum(seen) for seen in zip(*turns, strict=True)] == [1, 1, 2, 1]
        for peer in peers:
            peer.close()


async def test_of_two_channels_in_one_flush_the_one_that_was_left_meanwhile_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with trio.open_nursery() as nursery:
        hub, counters = make_hub()
        both, other = Peer(nursery, counters), Peer(nursery, counters)
        left, kept = hub.open("c:left"), hub.open("c:kept")
        for channel in (left, kept):
            channel.add(JSON_ENCODING, both.outbox)
        left.add(JSON_ENCODING, other.outbox)

        def meddle() -> None:
            if both.outbox.subscriptions == 2:
                left.discard(JSON_ENCODING, both.outbox)

        monkeypatch.setattr("fanline.engine.channels.flusher.Slices", Interrupting(meddle))
        monkeypatch.setattr("fanline.engine.channels.flusher._CHECK_EVERY", 1)
        flusher = Flusher(hub, counters, coalesce_ms=0)
        hub.receive("c:left", b"1", None)
        hub.receive("c:kept", b"2", None)
        await flusher.flush()
        assert [msgspec.json.decode(payload)["c"] for payload in both.received()] == ["c:kept"]
        assert len(other.received()) == 1
        for peer in (both, other):
            peer.close()


def test_opcode_of_each_dialect_matches_its_frames() -> None:
    assert (JSON.opcode, CBOR.opcode) == (Opcode.TEXT, Opcode.BINARY)
