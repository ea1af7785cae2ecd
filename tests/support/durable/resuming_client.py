"""A subscriber that reconnects for ever, resumes by offset and epoch, and records everything it is sent.

It is light, so that one process can run hundreds: bytes in, frames by FrameReader, one Struct per message. What does
not follow on what it has is noted in `faults`, never repaired.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import trio

from fanline.protocol.envelope import decode_cbor, decode_json, encode_cbor
from fanline.protocol.websocket.frames import FrameReader, Opcode, encode_masked_frame
from tests.support.raw_client import MASK, upgrade_request

_CHUNK = 65536
_RETRY_SECONDS = (0.0, 0.1)
JSON, CBOR = "fanline.v1.json", "fanline.v1.cbor"


class ServerMessage(msgspec.Struct):
    """A message of the server."""

    t: str
    c: str | None = None
    o: int | None = None
    p: int | None = None
    ep: str | None = None
    d: Any = None


class Received(NamedTuple):
    """One channel message."""

    offset: int
    previous: int
    data: Any


_decode = msgspec.json.Decoder(ServerMessage).decode


def _decode_cbor(payload: bytes) -> ServerMessage:
    found = decode_cbor(payload)
    return ServerMessage(str(found.type), found.channel, found.offset, found.previous, found.epoch, found.value)


class ResumingClient:
    """Subscribes to one channel. `position`: what its first `sub` asks for, as in {"o": 0} or {"d": {"last": 5}}."""

    def __init__(
        self,
        host: str,
        port: int,
        channel: str,
        position: dict[str, Any] | None = None,
        *,
        source: str = "127.0.0.1",
        seed: int = 0,
        subprotocol: str = JSON,
    ) -> None:
        self._position = position or {}
        self.channel = channel
        self.begins_after: int | None = self._position.get("o")
        self.offset = self.begins_after
        self.epoch: str | None = self._position.get("ep")
        self.messages: list[Received] = []
        self.gaps: list[dict[str, Any]] = []
        self.answers: list[ServerMessage] = []
        """The `ok` of every join."""
        self.refusals: list[dict[str, Any]] = []
        """The `d` of every `err`."""
        self.repeats = 0
        self.faults: list[str] = []
        """What must not happen: a message, or a gap, that does not follow on the message before it."""
        self.live = False
        """The `sub` was answered, and everything up to the offset in the answer has come."""
        self.connections = 0
        self.longest_silence = 0.0
        """The most seconds between two channel messages."""
        self._heard_at: float | None = None
        self._live_from = 0
        self._history = 0  # messages that are still to come of it
        self._refused = False
        self._just_joined = False
        self._new_epoch = False  # answered with another epoch than ours, and not recovered: a gap has to follow
        self._address = (host, port)
        self._source = source
        self._subprotocol = subprotocol
        self._chance = random.Random(f"{seed}/{source}")
        self._stream: trio.SocketStream | None = None

    @property
    def data(self) -> list[Any]:
        """The data of all messages, in the order of their arrival."""
        return [message.data for message in self.messages]

    async def run(self) -> None:
        """Stay subscribed until cancelled."""
        while True:
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._connect_and_read()
            self.live = False
            await trio.sleep(self._chance.uniform(*_RETRY_SECONDS))

    async def cut(self) -> None:
        """Close the connection without a word."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)

    async def _connect_and_read(self) -> None:
        host, port = self._address
        stream = self._stream = await trio.open_tcp_stream(host, port, local_address=self._source)
        async with stream:
            await stream.send_all(upgrade_request(subprotocol=self._subprotocol))
            rest = await _read_head(stream)
            self.connections += 1
            self._refused = False
            await self._say(stream, {"t": "sub", "c": self.channel, "i": "s", **self._where()})
            reader = FrameReader(64 * 1024 * 1024, from_client=False)
            while rest:
                for message in reader.feed(rest):
                    if message.opcode is Opcode.TEXT:
                        self._take(_decode(message.payload))
                    elif message.opcode is Opcode.BINARY:
                        self._take(_decode_cbor(message.payload))
                    elif message.opcode is Opcode.PING:
                        await stream.send_all(encode_masked_frame(Opcode.PONG, message.payload, MASK))
                if self._refused:
                    return  # and try again
                rest = await stream.receive_some(_CHUNK)

    def _where(self) -> dict[str, Any]:
        if self.offset is None:
            return self._position
        return {"o": self.offset} if self.epoch is None else {"o": self.offset, "ep": self.epoch}

    async def _say(self, stream: trio.SocketStream, command: dict[str, Any]) -> None:
        text = msgspec.json.encode(command)
        if self._subprotocol == CBOR:
            await stream.send_all(encode_masked_frame(Opcode.BINARY, encode_cbor(decode_json(text)), MASK))
        else:
            await stream.send_all(encode_masked_frame(Opcode.TEXT, text, MASK))

    def _take(self, frame: ServerMessage) -> None:
        if frame.t == "pub" and frame.c == self.channel:
            self._take_message(frame)
        elif frame.t == "ok":
            self._take_answer(frame)
        elif frame.t == "gap":
            self._take_gap(frame)
        elif frame.t == "err":
            self.refusals.append(frame.d)
            self._refused = True

    def _take_answer(self, frame: ServerMessage) -> None:
        assert frame.o is not None
        self.answers.append(frame)
        self._just_joined = True
        self._live_from = frame.o
        told = frame.d or {}
        recovered = told.get("recovered", True)
        self._new_epoch = not recovered and self.epoch not in (None, frame.ep)
        if self._new_epoch:
            return
        self.epoch = frame.ep
        self._history = told.get("count") or 0
        if recovered:  # otherwise a gap comes first
            self._end_history()

    def _end_history(self) -> None:
        """Once the history is read, the client is where live messages begin, even if its last message is older."""
        if not self._history:
            self.offset = max(self.offset or 0, self._live_from)
            self._just_joined = True
        self.live = self.offset is not None and self.offset >= self._live_from

    def _take_message(self, frame: ServerMessage) -> None:
        now = trio.current_time()
        self.longest_silence = max(self.longest_silence, now - (self._heard_at or now))
        self._heard_at = now
        if frame.o is None or frame.p is None:
            self.faults.append(f"a message without o or p: {frame}")
            return
        self.epoch = frame.ep or self.epoch  # nats-server was restarted, and has lost nothing
        if self._new_epoch:
            self.faults.append(f"message {frame.o} of another epoch came before the gap that announces it")
        if self.offset is not None and frame.o <= self.offset:
            self.repeats += 1
            return
        if not self._follows(frame.p):
            self.faults.append(f"after {self.offset} came {frame.o}, which follows on {frame.p}")
        self.messages.append(Received(frame.o, frame.p, frame.d))
        self.offset = frame.o
        self._just_joined = False
        self.live = self.live or self.offset >= self._live_from
        if self._history:
            self._history -= 1
            self._end_history()

    def _follows(self, previous: int) -> bool:
        """Whether nothing is missing before a message. Right after a join it may follow on an older one than ours."""
        return self.offset is None or previous == self.offset or (self._just_joined and previous < self.offset)

    def _take_gap(self, frame: ServerMessage) -> None:
        self.gaps.append(frame.d)
        if frame.d["reason"] == "expired" and self.offset is not None and frame.d["from"] != self.offset + 1:
            self.faults.append(f"after {self.offset} came a gap from {frame.d['from']}")
        if frame.d["reason"] == "epoch":
            self.epoch = frame.ep
        self.offset = frame.d["to"]
        self._new_epoch = False
        self.live = self.live or self.offset >= self._live_from


async def _read_head(stream: trio.SocketStream) -> bytes:
    """Read the response to the handshake; return the first bytes behind it."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await stream.receive_some(_CHUNK)
        if not data:
            raise ConnectionResetError
        head += data
    head, _, rest = head.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 503 "):
        raise ConnectionRefusedError("the server has no room")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return rest or await stream.receive_some(_CHUNK)


@asynccontextmanager
async def running_clients(clients: Sequence[ResumingClient]) -> AsyncIterator[None]:
    """Run clients until the block ends."""
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(client.run)
        yield
        nursery.cancel_scope.cancel()
