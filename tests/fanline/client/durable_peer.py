"""A server with one durable channel that does everything wrong that a network and a worker can, but keeps its promises:
`sub` is answered by the rules of docs/reference/protocol.md, a refused one has done nothing, and what was lost on the
way can be asked for.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import trio_websocket

import fanline
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import CloseReason, ErrorCode, MessageError
from fanline.protocol.messages.answers import ErrorData
from fanline.protocol.messages.commands import Authenticate
from fanline.protocol.messages.control_data import read
from fanline.protocol.tasks.events import TaskEvent, data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot, snapshot_fields
from tests.fanline.client.peer import Talk, running_peer

CHANNEL = "task:1"
PASSING = (ErrorCode.UNAVAILABLE, ErrorCode.BAD_OFFSET)
"""Refusals that may end by themselves."""
Items = fanline.Subscription[fanline.Message] | fanline.Subscription[fanline.Message | fanline.Gap]


class Entry(NamedTuple):
    """A stored message."""

    offset: int
    previous: int | None
    data: Any
    event: str | None = None
    time: int | None = None
    """When it was published, in Unix ms; by default what follows from its offset, so that all viewers agree."""

    @property
    def published(self) -> int:
        return self.offset * 100 if self.time is None else self.time


class FakeTask:
    """The task that a peer's messages make, folded as an engine does it."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.lines: list[dict[str, Any]] = []

    def take(self, entry: Entry) -> None:
        envelope = Envelope(event=entry.event, data=entry.data)
        event = event_of(envelope)
        if event is None:
            return
        try:
            data = data_of(envelope, event)
            self.snapshot = apply(self.snapshot, event, data, entry.published)
        except MessageError:
            return
        lines = data.lines or []
        for number, line in enumerate(lines, self.snapshot.lines - len(lines)):
            stream = str(data.stream or "stdout")
            batch = {"lines": [line], "first": number, "attempt": self.snapshot.attempt, "stream": stream}
            self.lines.append(batch)

    def frame(self, count: int) -> dict[str, Any]:
        newest = self.lines[len(self.lines) - min(count, len(self.lines)) :]
        return {"snapshot": snapshot_fields(self.snapshot), "output": newest}


class DurablePeer:
    """`chance` decides about faults; `cut`, `lose` and `repeat` are probabilities per message, `refuse` per `sub`."""

    def __init__(self, chance: random.Random, *, cut: float = 0.0, lose: float = 0.0, repeat: float = 0.0) -> None:
        self.url = ""
        self.asked: list[Envelope] = []
        """Every `sub` and `call` there was."""
        self.epoch = "one"
        self.log: list[Entry] = []
        self.floor = 0
        """Whatever has an offset up to here was forgotten."""
        self.task = FakeTask()
        self.answers: list[Envelope] = []
        """The answers to the next calls, of any type. After them, calls are answered `ok` with the verb."""
        self.refuse = 0.0
        """Only for a `sub` with an offset: one that resumes, or asks for a hole."""
        self._chance = chance
        self._cut, self._lose, self._repeat = cut, lose, repeat
        self._talk: Talk | None = None
        self._subscribed = False

    @property
    def last(self) -> int:
        return self.log[-1].offset if self.log else self.floor

    def append(self, data: Any, event: str | None = None, time: int | None = None) -> Entry:
        """Store a message. Offsets jump, because the stream has other channels too."""
        entry = Entry(self.last + self._chance.choice((1, 1, 3)), self.last, data, event, time)
        self.log.append(entry)
        self.task.take(entry)
        return entry

    def forget(self) -> None:
        """Drop everything that is stored."""
        self.floor, self.log = self.last, []

    async def publish(self, data: Any, event: str | None = None, time: int | None = None) -> None:
        """Store a message, and send it as well as chance allows."""
        entry = self.append(data, event, time)
        if self._talk is None or not self._subscribed or self._chance.random() < self._lose:
            return
        with suppress(trio_websocket.ConnectionClosed):
            await self._send(self._talk, entry)
            if self._chance.random() < self._repeat:
                await self._send(self._talk, self._chance.choice(self.log))
            if self._chance.random() < self._cut:
                await self.cut()

    async def cut(self) -> None:
        """Lose the connection."""
        if self._talk is not None:
            talk, self._talk = self._talk, None
            await talk.close(CloseReason.RESTART.code)

    async def gap(self, first: int | None, last: int | None, reason: str) -> None:
        assert self._talk is not None
        await self._send_gap(self._talk, first, last, reason)

    async def _send_gap(self, talk: Talk, first: int | None, last: int | None, reason: str) -> None:
        data = {"from": first, "to": last, "reason": reason}
        await talk.send(Envelope(MessageType.GAP, channel=CHANNEL, epoch=self.epoch, data=data))

    async def serve(self, talk: Talk) -> None:
        self._talk, self._subscribed = talk, False
        talk.forgets_sessions = self._chance.random() < 0.5
        await talk.welcome()
        while True:
            command = await talk.receive()
            if command.type == MessageType.SUB:
                self.asked.append(command)
                await self._sub(talk, command)
            elif command.type == MessageType.PING:
                await talk.send(Envelope(MessageType.PONG, id=command.id))
            elif command.type == MessageType.AUTH:
                await self._resume(talk, command)
            elif command.type == MessageType.PUB:
                await talk.send(Envelope(MessageType.OK, id=command.id, channel=CHANNEL, data={"id": command.id}))
            elif command.type == MessageType.CALL:
                self.asked.append(command)
                answer = self.answers.pop(0) if self.answers else Envelope(MessageType.OK, data=command.event)
                answer.id = command.id
                await talk.send(answer)

    async def _resume(self, talk: Talk, command: Envelope) -> None:
        """Take up a session that holds the channel."""
        place = read(Authenticate, command).positions.get(CHANNEL, (None, None))
        again = Envelope(MessageType.SUB, channel=CHANNEL, offset=place[0], epoch=place[1])
        self.asked.append(again)
        await self._sub(talk, again)
        await talk.end_resumption(command)

    async def _sub(self, talk: Talk, command: Envelope) -> None:
        if command.offset is not None and self._chance.random() < self.refuse:
            refusal = ErrorData(code=self._chance.choice(PASSING), message="not now")
            await talk.send(Envelope(MessageType.ERR, id=command.id, channel=CHANNEL, data=refusal.fields()))
        else:
            await self._join(talk, command)

    async def _join(self, talk: Talk, command: Envelope) -> None:
        value = command.value or {}
        if self._subscribed and command.offset is None and not value:
            await talk.send(Envelope(MessageType.OK, id=command.id, channel=CHANNEL))
            return
        history = self._history(command, value)
        known = command.epoch in (None, self.epoch)
        missed = bool(command.offset is not None and known and command.offset < self.floor)
        outcome = {"recovered": known and not missed, "count": len(history) + (missed or not known)}
        data = outcome if value or command.offset is not None else None
        answer = Envelope(MessageType.OK, id=command.id, channel=CHANNEL, offset=self.last, epoch=self.epoch, data=data)
        sent = self.last
        self._subscribed = False
        await talk.send(answer)
        if not known:
            await self._send_gap(talk, command.offset or 0, sent, "epoch")
        if missed:
            await self._send_gap(talk, (command.offset or 0) + 1, self.floor, "expired")
        for entry in history:
            await self._send(talk, entry)
        if missed or not known:
            await self._send(talk, self._snapshot(200))
        while rest := [entry for entry in self.log if entry.offset > sent]:
            sent = rest[0].offset
            await self._send(talk, rest[0])
        self._subscribed = True

    def _snapshot(self, lines: int) -> Entry:
        return Entry(self.last, None, self.task.frame(lines), TaskEvent.SNAPSHOT)

    def _history(self, command: Envelope, value: dict[str, Any]) -> list[Entry]:
        if "snapshot" in value:
            return [self._snapshot(value.get("lines", 200))]
        if "last" in value:
            return self.log[-value["last"] :]
        if "start" in value:
            return list(self.log)
        if command.epoch not in (None, self.epoch):
            return list(self.log)
        if command.offset is None:
            return []
        return [entry for entry in self.log if entry.offset > command.offset]

    async def _send(self, talk: Talk, entry: Entry) -> None:
        envelope = Envelope(
            MessageType.PUB,
            channel=CHANNEL,
            offset=entry.offset,
            previous=entry.previous,
            event=entry.event,
            data=entry.data,
            time=None if entry.event is None else entry.published,
        )
        await talk.send(envelope)


@asynccontextmanager
async def durable_peer(seed: int = 0, **faults: float) -> AsyncIterator[DurablePeer]:
    peer = DurablePeer(random.Random(seed), **faults)
    async with running_peer(peer.serve) as peer.url:
        yield peer


async def take_data(messages: Items, count: int) -> list[Any]:
    """The data of the next messages, none of which may be a gap."""
    found = []
    for _ in range(count):
        item = await anext(messages)
        assert isinstance(item, fanline.Message), item
        found.append(item.data)
    return found
