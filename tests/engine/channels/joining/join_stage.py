"""A stage for joining step by step: one client, and a history and a recovery that answer by a script."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.bus.stored import Epoch
from fanline.engine.channels.durable.channel import DurableChannel
from fanline.engine.channels.durable.history import Piece
from fanline.engine.channels.durable.life import DurableState
from fanline.engine.channels.joining.join import Joining
from fanline.engine.channels.joining.start import StartPosition
from fanline.engine.channels.subscription import ChannelSubscription, Router
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.sending.life import Life
from fanline.engine.sending.outbox import Outbox, OutboxShared
from fanline.protocol.dialects import JSON
from fanline.protocol.dialects.encoding import encoding_of
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.notices import GapReason
from fanline.protocol.websocket.frames import FrameReader
from tests.engine.parts import make_hub

ENCODING = encoding_of(JSON, deflated=False)
PATIENCE = 60.0
Step = Piece | BusError | Callable[[], Piece]


def message(offset: int, previous: int | None = None, **fields: Any) -> Envelope:
    previous = offset - 1 if previous is None else previous
    return Envelope(MessageType.PUB, channel="user:ann", offset=offset, previous=previous, data=offset, **fields)


def gap(first: int, last: int) -> Envelope:
    data = {"from": first, "to": last, "reason": GapReason.EXPIRED}
    return Envelope(MessageType.GAP, channel="user:ann", epoch="e", data=data)


def expired(offset: int) -> Envelope:
    return message(offset, ttl=1, time=0)


class ScriptedHistory:
    """Answers with one step after the other."""

    def __init__(self) -> None:
        self.script: list[Step] = []
        self.asked: list[int] = []

    async def after(self, durable: DurableChannel, offset: int) -> Piece:
        await trio.lowlevel.checkpoint()
        assert durable.state is not DurableState.OPENING
        self.asked.append(offset)
        step = self.script.pop(0)
        if isinstance(step, BusError):
            raise step
        return step if isinstance(step, Piece) else step()


class ScriptedRecovery:
    """Opens a channel at `last`; knows the offsets it is told to know."""

    def __init__(self) -> None:
        self.last = 0
        self.epoch = Epoch("e")
        self.known: Sequence[int] = ()
        self.asked: list[int] = []
        self.is_away = False

    async def wait_steady(self, durable: DurableChannel) -> None:
        if self.is_away:
            await trio.sleep_forever()
        if durable.state is DurableState.OPENING:
            durable.open(self.epoch, self.last)

    async def knows(self, durable: DurableChannel, offset: int) -> bool:
        assert durable.state is DurableState.STEADY
        self.asked.append(offset)
        return offset in self.known


class Stage:
    """One client, and everything it joins with."""

    def __init__(self, nursery: trio.Nursery, near: socket.socket, far: socket.socket) -> None:
        broker = MemoryBroker(Namespaces())
        self.bus = MemoryBus(broker)
        self.hub, self.counters = make_hub(Namespaces())
        self.history, self.recovery = ScriptedHistory(), ScriptedRecovery()
        shared = OutboxShared(nursery, self.counters, max_bytes=1 << 20, max_messages=4096)
        self.outbox = Outbox(near, Life(), shared)
        self.answers: list[Envelope] = []
        self.joining = Joining(
            self.bus,
            Router(self.hub, self.bus, timeout=1),
            cast("Any", self.recovery),
            cast("Any", self.history),
            self.counters,
            Faults(self.counters),
            timeout=3,
            patience=PATIENCE,
        )
        self._far = far
        self._reader = FrameReader(1 << 20, from_client=False)

    async def join(
        self,
        start: StartPosition,
        *script: Step,
        name: str = "user:ann",
        last: int = 0,
        meanwhile: Callable[[DurableChannel], None] | None = None,
    ) -> ChannelSubscription:
        """Join a channel that stands at `last`, with a history that answers by the script.

        `meanwhile` happens right after the answer, before the client is sent its history.
        """
        self.history.script, self.recovery.last = list(script), last

        def answer(envelope: Envelope) -> None:
            self.answers.append(envelope)
            if meanwhile is not None:
                meanwhile(self.durable())

        subscription = self.joining.subscription(name, ENCODING, self.outbox)
        await self.joining.join(subscription, start, answer)
        assert self.history.script == []
        return subscription

    def received(self) -> list[dict[str, Any]]:
        """What the client was sent since the last call, besides answers."""
        try:
            data = self._far.recv(1 << 20)
        except BlockingIOError:
            return []
        return [msgspec.json.decode(message.payload) for message in self._reader.feed(data)]

    def chain(self) -> list[tuple[str, int, int]]:
        """(type, offset, previous) of messages, and ("gap", from, to) of gaps."""
        return [
            ("gap", each["d"]["from"], each["d"]["to"]) if each["t"] == "gap" else (each["t"], each["o"], each["p"])
            for each in self.received()
        ]

    def durable(self) -> DurableChannel:
        return next(self.hub.durable_channels())

    def answer(self) -> tuple[int | None, str | None, Any]:
        """Offset, epoch and data of the one answer."""
        (answer,) = self.answers
        assert (answer.type, bool(answer.channel)) == (MessageType.OK, True)
        return answer.offset, answer.epoch, answer.value


@asynccontextmanager
async def a_stage() -> AsyncIterator[Stage]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        async with trio.open_nursery() as nursery:
            yield Stage(nursery, near, far)
            nursery.cancel_scope.cancel()
