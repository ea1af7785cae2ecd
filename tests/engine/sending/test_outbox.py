"""The outbox against a real socket whose kernel buffers are small: order, bounds, and what is left at the end."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.engine.sending.life import Life
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, encode_close, encode_frame
from tests.support.seeds import new_seed


class Pair:
    """An outbox and the far end of its socket."""

    def __init__(self, outbox: Outbox, far: socket.socket, life: Life, counters: Counters) -> None:
        self.outbox = outbox
        self.far = far
        self.life = life
        self.counters = counters

    async def read(self, size: int) -> bytes:
        """At least `size` bytes from the far end."""
        data = b""
        while len(data) < size:
            await trio.lowlevel.wait_readable(self.far)
            data += self.far.recv(65536)
        return data


@asynccontextmanager
async def outbox_pair(max_bytes: int = 1 << 20, max_messages: int = 4096) -> AsyncIterator[Pair]:
    near, far = socket.socketpair()
    with near, far, trio.fail_after(10):
        for end in (near, far):
            end.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        counters, life = Counters(), Life()
        async with trio.open_nursery() as nursery:
            shared = OutboxShared(nursery, counters, max_bytes=max_bytes, max_messages=max_messages)
            yield Pair(Outbox(near, life, shared), far, life, counters)
            nursery.cancel_scope.cancel()


def batch_of(frame: bytes) -> EncodedBatch:
    """A batch of one channel message."""
    return EncodedBatch(
        [EncodedMessage(frame, Envelope("pub", channel="news:all"))], encoding_of(JSON, False), Namespace()
    )


def fill(pair: Pair) -> bytes:
    """Push until something is queued; what was pushed."""
    pushed = b""
    while not pair.outbox.backlog_bytes:
        data = encode_frame(Opcode.BINARY, b"%1000d" % len(pushed))
        pair.outbox.push(data)
        pushed += data
    return pushed


async def test_a_push_that_the_kernel_takes_is_there_at_once_without_a_task() -> None:
    async with outbox_pair() as pair:
        tasks = trio.lowlevel.current_statistics().tasks_living
        pair.outbox.push(b"now")
        assert pair.far.recv(100) == b"now"
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_everything_arrives_in_order_whatever_the_kernel_refuses() -> None:
    rng = random.Random(new_seed())
    async with outbox_pair() as pair:
        pushed = b""
        for _ in range(300):
            parts = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(rng.choice((1, 1, 3, 100)))]
            if len(parts) == 1:
                pair.outbox.push(parts[0])
            else:
                pair.outbox.push_parts([(part, batch_of(part)) for part in parts])
            pushed += b"".join(parts)
            if pair.outbox.backlog_bytes > 500_000:
                received = await pair.read(len(pushed))
                assert received == pushed
                pushed = b""
        assert await pair.read(len(pushed)) == pushed
        await pair.outbox.wait_drained()
        assert pair.outbox.backlog_bytes == 0
        assert pair.counters.slow_closed == 0


@pytest.mark.parametrize(("max_bytes", "max_messages"), [(20_000, 4096), (1 << 20, 16)], ids=["bytes", "batches"])
async def test_an_overflow_keeps_the_begun_frame_whole_and_ends_with_4008(max_bytes: int, max_messages: int) -> None:
    # S3-46
    async with outbox_pair(max_bytes, max_messages) as pair:
        fill(pair)
        while pair.life.is_open:
            pair.outbox.push(encode_frame(Opcode.BINARY, bytes(1000)))
            assert pair.outbox.backlog_bytes <= max_bytes + 2000  # and the frame that did not fit
        assert pair.life.scope.deadline <= trio.current_time()
        pair.outbox.push(b"not taken any more")
        goodbye = encode_close(CloseReason.SLOW)
        reader, received = FrameReader(1 << 20, from_client=False), list[WebSocketMessage]()
        while not received or received[-1].opcode is not Opcode.CLOSE:
            received += reader.feed(await pair.read(1))
        assert reader.idle
        assert {message.opcode for message in received[:-1]} == {Opcode.BINARY}
        assert received[-1].payload == goodbye[2:]
        assert pair.counters.slow_closed == 1


async def test_a_close_frame_comes_after_what_is_queued_and_nothing_after_it() -> None:
    async with outbox_pair() as pair:
        pushed = fill(pair)
        pair.outbox.finish(CloseReason.RESTART)
        pair.outbox.finish(CloseReason.POLICY)
        pair.outbox.push(b"late")
        expected = pushed + encode_close(CloseReason.RESTART)
        assert await pair.read(len(expected)) == expected
        assert pair.life.reason is CloseReason.RESTART


async def test_a_vanished_peer_ends_the_connection_without_an_exception() -> None:
    async with outbox_pair() as pair:
        pair.far.close()
        pair.outbox.push(b"x")
        assert pair.life.scope.cancel_called
        assert pair.life.reason is CloseReason.ABNORMAL


async def test_a_peer_that_vanishes_while_data_is_queued_ends_the_drain_task() -> None:
    async with outbox_pair() as pair:
        fill(pair)
        pair.far.close()
        await pair.outbox.wait_drained()
        assert pair.life.scope.cancel_called


async def test_a_connection_that_ends_before_its_drain_task_first_runs_takes_nothing_down() -> None:
    # Raced: the drain task is scheduled, and in the same turn the reading task meets the end and closes the socket.
    near, far = socket.socketpair()
    near.setblocking(False)
    with far, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            shared = OutboxShared(nursery, Counters(), max_bytes=1 << 20, max_messages=4096)
            outbox = Outbox(near, Life(), shared)
            outbox.push(bytes(5_000_000))
            outbox.life.lose()
            trio.lowlevel.notify_closing(near)
            near.close()
        assert outbox.backlog_bytes == 0


async def test_a_reader_at_full_speed_survives_a_batch_far_over_the_bound() -> None:
    async with outbox_pair(max_bytes=65_536) as pair:
        pair.outbox.push(bytes(3_000_000))
        for _ in range(100):
            pair.outbox.push(bytes(100))
        assert pair.life.is_open
        assert len(await pair.read(3_010_000)) == 3_010_000
