"""A server with one durable channel that does everything wrong that a network and a worker can, but keeps its word:
`sub` is answered by the rules of engine/joining.py, and what is lost on the way can be asked for.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio_websocket

from protocol.envelope import Envelope, MessageType
from protocol.errors import CloseReason
from tests.fanline.peer import Talk, running_peer

CHANNEL = "task:1"


class DurablePeer:
    """`chance` decides about faults: each a probability a message."""

    def __init__(self, chance: random.Random, *, cut: float = 0.0, lose: float = 0.0, repeat: float = 0.0) -> None:
        self.url = ""
        self.asked: list[Envelope] = []
        """Every `sub` there was."""
        self.epoch = "one"
        self.log: list[tuple[int, int, Any]] = []  # (offset, previous, data)
        self._chance = chance
        self._cut, self._lose, self._repeat = cut, lose, repeat
        self._talk: Talk | None = None
        self._subscribed = False

    @property
    def last(self) -> int:
        return self.log[-1][0] if self.log else 0

    def append(self, data: Any) -> tuple[int, int, Any]:
        """Store a message; offsets jump, for the stream has other channels too."""
        entry = (self.last + self._chance.choice((1, 1, 3)), self.last, data)
        self.log.append(entry)
        return entry

    async def publish(self, data: Any) -> None:
        """Store a message, and send it as well as chance allows."""
        entry = self.append(data)
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

    async def gap(self, first: int, last: int, reason: str) -> None:
        assert self._talk is not None
        data = {"from": first, "to": last, "reason": reason}
        await self._talk.send(Envelope(MessageType.GAP, channel=CHANNEL, epoch=self.epoch, data=data))

    async def serve(self, talk: Talk) -> None:
        self._talk, self._subscribed = talk, False
        await talk.welcome()
        while True:
            command = await talk.receive()
            if command.type == MessageType.SUB:
                self.asked.append(command)
                await self._join(talk, command)
            elif command.type == MessageType.PUB:
                await talk.send(Envelope(MessageType.OK, id=command.id, channel=CHANNEL, data={"id": command.id}))

    async def _join(self, talk: Talk, command: Envelope) -> None:
        value = command.value or {}
        if self._subscribed and command.offset is None and not value:
            await talk.send(Envelope(MessageType.OK, id=command.id, channel=CHANNEL))
            return
        history = self._history(command, value)
        known = command.epoch in (None, self.epoch)
        data = {"recovered": known, "count": len(history)} if value or command.offset is not None else None
        answer = Envelope(MessageType.OK, id=command.id, channel=CHANNEL, offset=self.last, epoch=self.epoch, data=data)
        sent = self.last
        self._subscribed = False
        await talk.send(answer)
        if not known:
            await self.gap(command.offset or 0, sent, "epoch")
        for entry in history:
            await self._send(talk, entry)
        while rest := [entry for entry in self.log if entry[0] > sent]:
            sent = rest[0][0]
            await self._send(talk, rest[0])
        self._subscribed = True

    def _history(self, command: Envelope, value: dict[str, Any]) -> list[tuple[int, int, Any]]:
        if "last" in value:
            return self.log[-value["last"] :]
        if "start" in value:
            return list(self.log)
        if command.offset is None or command.epoch not in (None, self.epoch):
            return []
        return [entry for entry in self.log if entry[0] > command.offset]

    async def _send(self, talk: Talk, entry: tuple[int, int, Any]) -> None:
        offset, previous, data = entry
        await talk.send(Envelope(MessageType.PUB, channel=CHANNEL, offset=offset, previous=previous, data=data))


@asynccontextmanager
async def durable_peer(seed: int = 0, **faults: float) -> AsyncIterator[DurablePeer]:
    peer = DurablePeer(random.Random(seed), **faults)
    async with running_peer(peer.serve) as peer.url:
        yield peer
