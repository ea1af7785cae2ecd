"""How an outbox calls the kernel: how often, with what, and how it goes on from whatever was taken."""

import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from fanline.engine.counters import Counters
from fanline.engine.namespaces import Namespace
from fanline.engine.sending.batch import EncodedBatch, EncodedMessage
from fanline.engine.sending.life import Life
from fanline.engine.sending.outbox import _DRAIN_PARTS, Outbox, OutboxShared
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope

ENCODING = encoding_of(JSON, deflated=False)
REFUSED = 0
"""In place of a size: the kernel takes nothing now."""


class ScriptedSocket(socket.socket):
    """Its kernel takes as much as it is told to, call by call, and then everything."""

    script: Sequence[int] = ()
    calls: Sequence[tuple[str, int]] = ()
    """Which call, and with how many buffers."""

    def send(self, data: Any, *rest: Any) -> int:
        return super().send(self._allowed("send", [data]))

    def sendmsg(self, buffers: Iterable[Any], *rest: Any) -> int:
        return super().send(self._allowed("sendmsg", list(buffers)))

    def _allowed(self, name: str, buffers: list[Any]) -> bytes:
        self.calls = [*self.calls, (name, len(buffers))]
        data = b"".join(map(bytes, buffers))
        size, *self.script = *self.script, *([len(data)] if not self.script else [])
        if size == REFUSED:
            raise BlockingIOError
        return data[:size]


class Scripted(NamedTuple):
    outbox: Outbox
    near: ScriptedSocket
    far: socket.socket

    async def received(self) -> bytes:
        """Everything that arrives until nothing is queued."""
        await self.outbox.wait_drained()
        return self.far.recv(1 << 20)


@asynccontextmanager
async def scripted(*script: int) -> AsyncIterator[Scripted]:
    """An outbox on a socket whose first calls take so many bytes each."""
    left, far = socket.socketpair()
    near = ScriptedSocket(left.family, left.type, left.proto, left.detach())
    near.script = script
    with near, far, trio.fail_after(10):
        near.setblocking(False)
        far.setblocking(False)
        async with trio.open_nursery() as nursery:
            shared = OutboxShared(nursery, Counters(), max_bytes=1 << 20, max_messages=1000)
            yield Scripted(Outbox(near, Life(), shared), near, far)
            nursery.cancel_scope.cancel()


def parts(*payloads: bytes) -> list[tuple[bytes, EncodedBatch]]:
    """Each the batch of one channel."""
    messages = [[EncodedMessage(payload, Envelope("pub", channel="news:all"))] for payload in payloads]
    return [(batch[0].frame, EncodedBatch(batch, ENCODING, Namespace())) for batch in messages]


async def test_the_batches_of_several_channels_take_one_call() -> None:  # S3-44
    async with scripted() as peer:
        peer.outbox.push_parts(parts(b"one", b"two", b"three"))
        assert peer.near.calls == [("sendmsg", 3)]
        assert await peer.received() == b"onetwothree"


async def test_as_many_batches_as_the_kernel_gathers_take_one_call_and_more_take_one_each() -> None:
    async with scripted() as peer:
        peer.outbox.push_parts(parts(*[b"x"] * _DRAIN_PARTS))
        assert peer.near.calls == [("sendmsg", _DRAIN_PARTS)]
    async with scripted() as peer:
        peer.outbox.push_parts(parts(*[b"x"] * (_DRAIN_PARTS + 1)))
        assert peer.near.calls == [("send", 1)] * (_DRAIN_PARTS + 1)


async def test_while_something_is_queued_a_push_makes_no_call() -> None:
    async with scripted(REFUSED) as peer:
        peer.outbox.push(b"first")
        peer.outbox.push(b" second")
        peer.outbox.push_parts(parts(b" third", b" fourth"))
        assert peer.near.calls == [("send", 1)]
        assert await peer.received() == b"first second third fourth"
        assert peer.near.calls[1:] == [("sendmsg", 1), ("sendmsg", 3)]


async def test_a_kernel_that_takes_none_of_several_batches_gets_all_of_them_later() -> None:
    async with scripted(REFUSED) as peer:
        peer.outbox.push_parts(parts(b"one", b"two"))
        assert await peer.received() == b"onetwo"


async def test_a_kernel_that_takes_some_of_several_batches_gets_the_rest_later() -> None:
    for taken in range(1, 9):
        async with scripted(taken) as peer:
            peer.outbox.push_parts(parts(b"one", b"two", b"end"))
            assert await peer.received() == b"onetwoend"


async def test_a_kernel_that_refuses_although_the_socket_is_writable_is_asked_again() -> None:
    async with scripted(2, REFUSED, REFUSED, 1) as peer:
        peer.outbox.push(b"one")
        peer.outbox.push(b"two")
        assert await peer.received() == b"onetwo"
        assert peer.outbox.life.is_open


async def test_a_queue_leaves_in_as_few_calls_as_the_kernel_allows() -> None:
    async with scripted(REFUSED) as peer:
        for _ in range(2 * _DRAIN_PARTS + 1):
            peer.outbox.push(b"x")
        assert await peer.received() == b"x" * (2 * _DRAIN_PARTS + 1)
        assert peer.near.calls[1:] == [("sendmsg", 1), ("sendmsg", _DRAIN_PARTS), ("sendmsg", _DRAIN_PARTS)]


async def test_a_new_outbox_has_no_subscriptions() -> None:
    async with scripted() as peer:
        assert peer.outbox.subscriptions == 0
