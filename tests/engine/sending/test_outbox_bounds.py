"""The bounds of an outbox, to the message and to the byte, and what is dropped, refused or said beyond them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import trio

from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespace, SlowPolicy
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.engine.sending.life import Life, LifeState
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, decode_close, encode_frame

ENCODING = encoding_of(JSON, deflated=False)
FIRST = encode_frame(Opcode.BINARY, bytes(3_000_000))
"""Far more than the kernel takes: from then on everything is queued."""


class Slow(NamedTuple):
    """An outbox whose kernel buffers are full, and the far end."""

    outbox: Outbox
    far: socket.socket
    counters: Counters

    async def read(self) -> list[WebSocketMessage]:
        """Everything a client reads until the outbox is drained, or the connection has been closed; without FIRST."""
        reader, received = FrameReader(1 << 24, from_client=False), list[WebSocketMessage]()
        while self.outbox.backlog_bytes or not received:
            await trio.lowlevel.wait_readable(self.far)
            received += reader.feed(self.far.recv(1 << 20))
            await trio.lowlevel.checkpoint()
        received += reader.feed(self._rest())
        assert reader.idle
        return received[1:]

    def _rest(self) -> bytes:
        try:
            return self.far.recv(1 << 20)
        except BlockingIOError:
            return b""


@asynccontextmanager
async def slow(max_bytes: int = 1 << 20, max_messages: int = 100) -> AsyncIterator[Slow]:
    near, far = socket.socketpair()
    with near, far, trio.fail_after(10):
        near.setblocking(False)
        far.setblocking(False)
        async with trio.open_nursery() as nursery:
            counters = Counters()
            shared = OutboxShared(nursery, counters, max_bytes=max_bytes, max_messages=max_messages)
            outbox = Outbox(near, Life(), shared)
            outbox.push(FIRST)
            assert outbox.backlog_bytes
            yield Slow(outbox, far, counters)
            nursery.cancel_scope.cancel()


def batch_of(*numbers: int, slow: SlowPolicy = SlowPolicy.RESUME, **fields: Any) -> tuple[bytes, EncodedBatch]:
    """The joined frames of channel messages, and the messages."""
    envelopes = [Envelope("pub", channel="news:all", data=number, **fields) for number in numbers]
    batch = EncodedBatch(
        [EncodedMessage(ENCODING.encode(one), one) for one in envelopes], ENCODING, Namespace(slow=slow)
    )
    return batch.joined(), batch


def sent(messages: list[WebSocketMessage]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(message.payload) for message in messages]


def is_closed_as_slow(peer: Slow) -> bool:
    return (peer.outbox.life.state, peer.outbox.life.reason) == (LifeState.CLOSING, CloseReason.SLOW)


# --- the bounds ---------------------------------------------------------------------------------------------------


async def test_exactly_the_bound_in_bytes_may_wait_and_one_byte_more_ends_the_connection() -> None:
    async with slow(max_bytes=1000) as peer:
        peer.outbox.push(bytes(400))
        peer.outbox.push(bytes(600))
        assert peer.outbox.life.is_open
        assert peer.counters.slow_closed == 0
        peer.outbox.push(b"x")
        assert is_closed_as_slow(peer)
        assert peer.counters.slow_closed == 1


async def test_exactly_the_bound_in_messages_may_wait_and_one_more_ends_the_connection() -> None:
    async with slow(max_messages=3) as peer:  # the one that does not fit is the first of them
        peer.outbox.push(b"a")
        peer.outbox.push(b"b")
        assert peer.outbox.life.is_open
        peer.outbox.push(b"c")
        assert is_closed_as_slow(peer)


async def test_each_connection_that_was_too_slow_is_counted() -> None:
    async with slow(max_bytes=0) as peer:
        peer.outbox.push(b"x")
        other = Outbox(peer.outbox._socket, Life(), peer.outbox._shared)
        other.push(FIRST)
        other.push(b"x")
        assert peer.counters.slow_closed == 2


async def test_a_connection_that_was_too_slow_gets_its_begun_frame_and_the_reason() -> None:
    async with slow(max_bytes=1000) as peer:
        peer.outbox.push(*batch_of(1))
        peer.outbox.push(bytes(1000))
        (goodbye,) = await peer.read()
        assert (goodbye.opcode, decode_close(goodbye.payload)[0]) == (Opcode.CLOSE, CloseReason.SLOW.code)


# --- namespaces that drop -----------------------------------------------------------------------------------------


async def test_a_namespace_that_drops_drops_from_exactly_the_bound_in_messages_and_says_how_many() -> None:
    async with slow(max_messages=2) as peer:
        peer.outbox.push(*batch_of(1, slow=SlowPolicy.DROP))
        assert peer.counters.dropped == 0
        peer.outbox.push(*batch_of(2, 3, slow=SlowPolicy.DROP))
        peer.outbox.push(*batch_of(4, slow=SlowPolicy.DROP))
        assert (peer.counters.dropped, peer.outbox.life.is_open) == (3, True)
        message, gap = sent(await peer.read())
        assert (message["d"], gap["t"], gap["d"]) == (1, "gap", {"reason": "slow", "count": 3})


async def test_a_namespace_that_drops_drops_beyond_exactly_the_bound_in_bytes() -> None:
    data, batch = batch_of(1, slow=SlowPolicy.DROP)
    async with slow(max_bytes=2 * len(data)) as peer:
        for _ in range(3):
            peer.outbox.push(data, batch)
        assert (peer.counters.dropped, peer.outbox.life.is_open) == (1, True)


async def test_an_answer_is_not_dropped_it_ends_a_connection_that_is_too_slow() -> None:
    async with slow(max_messages=2) as peer:
        peer.outbox.push(*batch_of(1, slow=SlowPolicy.DROP))
        peer.outbox.push(b"an answer")
        assert is_closed_as_slow(peer)
        assert peer.counters.dropped == 0


async def test_a_namespace_that_does_not_drop_ends_a_connection_that_is_too_slow() -> None:
    async with slow(max_messages=1) as peer:
        peer.outbox.push(*batch_of(1, slow=SlowPolicy.RESUME))
        assert is_closed_as_slow(peer)
        assert peer.counters.dropped == 0


# --- what waits ---------------------------------------------------------------------------------------------------


async def test_what_expires_while_it_waits_is_not_sent() -> None:
    async with slow() as peer:
        peer.outbox.push(*batch_of(1, ttl=1, time=1000))  # it expired in 1970
        peer.outbox.push(*batch_of(2))
        assert [message["d"] for message in sent(await peer.read())] == [2]


async def test_of_several_channels_that_are_pushed_together_each_waits_by_its_own_rules() -> None:
    async with slow() as peer:
        peer.outbox.push_parts([batch_of(1, key="k"), batch_of(2), batch_of(3, key="k")])
        assert [message["d"] for message in sent(await peer.read())] == [2, 3]


async def test_what_the_kernel_refuses_of_several_channels_waits_and_what_it_took_is_not_repeated() -> None:
    near, far = socket.socketpair()
    with near, far, trio.fail_after(10):
        near.setblocking(False)
        far.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        async with trio.open_nursery() as nursery:
            counters = Counters()
            outbox = Outbox(near, Life(), OutboxShared(nursery, counters, max_bytes=1 << 20, max_messages=100))
            large = encode_frame(Opcode.BINARY, bytes(3_000_000))
            outbox.push_parts([batch_of(1), (large, batch_of(2)[1]), batch_of(3, key="k"), batch_of(4, key="k")])
            received = await Slow(outbox, far, counters).read()
            assert [len(message.payload) for message in received[:1]] == [3_000_000]
            assert [message["d"] for message in sent(received[1:])] == [4]
            nursery.cancel_scope.cancel()


async def test_no_parts_are_no_push() -> None:
    async with slow(max_messages=1) as peer:
        peer.outbox.push_parts([])
        assert peer.outbox.life.is_open


# --- the end ------------------------------------------------------------------------------------------------------


async def test_a_close_frame_says_what_it_is_told_to_say() -> None:
    async with slow() as peer:
        peer.outbox.finish(CloseReason.POLICY, "wrong house")
        peer.outbox.finish(CloseReason.RESTART)
        assert [decode_close(message.payload) for message in await peer.read()] == [(1008, "wrong house")]
        assert (peer.outbox.life.state, peer.outbox.life.reason) == (LifeState.CLOSING, CloseReason.POLICY)


async def test_a_goodbye_is_answered_once() -> None:
    async with slow() as peer:
        answer = encode_frame(Opcode.CLOSE, b"\x03\xe8")
        peer.outbox.answer_close(answer)
        peer.outbox.answer_close(answer)
        assert len(await peer.read()) == 1
        assert (peer.outbox.life.state, peer.outbox.life.reason) == (LifeState.PARTED, CloseReason.NORMAL)


async def test_the_goodbye_of_a_client_that_was_told_to_go_is_not_answered() -> None:
    async with slow() as peer:
        peer.outbox.finish(CloseReason.RESTART)
        peer.outbox.answer_close(encode_frame(Opcode.CLOSE, b"\x03\xe8"))
        assert [decode_close(message.payload)[0] for message in await peer.read()] == [CloseReason.RESTART.code]
        assert (peer.outbox.life.state, peer.outbox.life.reason) == (LifeState.PARTED, CloseReason.RESTART)


async def test_an_outbox_with_nothing_queued_is_drained() -> None:
    async with slow() as peer:
        await peer.read()
        assert peer.outbox.backlog_bytes == 0
        await peer.outbox.wait_drained()
