"""Who meets at a task in tests with real processes: a producer that outlives NATS, and viewers that come back.

They fold with protocol.tasks, and trust nobody: what does not fit is noted in `faults`.
"""

import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, decode_json, encode_cbor, encode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import (
    PING,
    PONG,
    NatsMessage,
    connect_command,
    parse_url,
    publish_command,
    read_server,
    subscribe_command,
)
from fanline.protocol.nats.names import MESSAGE_ID, deduplication_id
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.events import data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.websocket.frames import Opcode
from tests.support.raw_client import RawClient, connect
from tests.support.serve import Serve

LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
_AGAIN_SECONDS = 0.05
_ACK_SECONDS = 2.0
_CALLS, _ACKS = 1, 2  # our numbers for the subscriptions
OK = b'{"v":1,"t":"ok","d":{"done":true}}'


class Producer:
    """One task's producer. What it says is stored before it says more, whatever becomes of NATS meanwhile."""

    def __init__(self, serve: Serve, channel: str) -> None:
        self.calls: list[dict[str, Any]] = []
        """What it was asked, oldest first."""
        self.answer: Callable[[dict[str, Any]], bytes] = lambda call: OK
        self.connections = 0
        self._address = parse_url(serve.nats_url)
        self._token = serve.nats_token
        self._channel = channel
        self._subject = to_subject(channel)
        self._inbox = f"_INBOX.{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._acks: dict[str, trio.Event] = {}
        self._stream: trio.SocketStream | None = None
        self._sending = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay connected until cancelled."""
        while True:
            with suppress(*LOST):
                await self._connect_and_read(task_status)
            self._stream = None
            await trio.sleep(_AGAIN_SECONDS)

    async def say(self, event: str, **data: Any) -> None:
        """Say one event, again and again until the stream has it."""
        name = f"{self._inbox}-{next(self._numbers)}"
        payload = encode_json(Envelope(id=name, event=event, data=data, time=time.time_ns() // 1_000_000))
        while not await self._store(name, payload):
            await trio.sleep(_AGAIN_SECONDS)

    async def _store(self, name: str, payload: bytes) -> bool:
        reply = f"{self._inbox}.{next(self._numbers)}"
        stored = self._acks[reply] = trio.Event()
        headers = {MESSAGE_ID: deduplication_id(self._channel, name)}
        with suppress(*LOST), trio.move_on_after(_ACK_SECONDS):
            if self._stream is not None:
                await self._send(self._stream, publish_command(self._subject, payload, headers, reply=reply))
                await stored.wait()
        return stored.is_set()

    async def _connect_and_read(self, task_status: trio.TaskStatus[None]) -> None:
        stream = await trio.open_tcp_stream(self._address.host, self._address.port)
        async with stream:
            control = self._subject.replace("fanline.pub.", "fanline.ctl.", 1)
            hello = subscribe_command(control, _CALLS) + subscribe_command(f"{self._inbox}.>", _ACKS)
            await stream.send_all(connect_command(token=self._token) + hello + PING)
            rest = b""
            while data := await stream.receive_some():
                found, rest = read_server(rest + data)
                for one in found:
                    if isinstance(one, NatsMessage):
                        await self._take(stream, one)
                    elif one.verb == "PING":
                        await self._send(stream, PONG)
                    elif one.verb == "PONG":
                        self._stream = stream
                        self.connections += 1
                        if self.connections == 1:
                            task_status.started()

    async def _take(self, stream: trio.SocketStream, message: NatsMessage) -> None:
        if message.sid == _ACKS:
            if message.status is None and "seq" in msgspec.json.decode(message.payload):
                self._acks[message.subject].set()
            return
        asked = msgspec.json.decode(message.payload)
        if asked["t"] == "call":
            self.calls.append(asked)
            await self._send(stream, publish_command(message.reply, self.answer(asked)))

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        async with self._sending:
            await stream.send_all(data)


class Viewer:
    """A viewer in the JSON or CBOR dialect that resumes by offset whenever it is cut off.

    `worker`: process id of the one it is connected to at first, and again as long as that lives; None: any.
    """

    def __init__(
        self, serve: Serve, channel: str, subprotocol: str = "fanline.v1.json", worker: int | None = None
    ) -> None:
        self.snapshot = Snapshot()
        self.lines: dict[tuple[int, int], str] = {}
        """(attempt, number) -> output line."""
        self.events: list[str] = []
        """Every event it was sent, refused ones, too, but not progress."""
        self.faults: list[str] = []
        self.connections = 0
        self.gaps = 0
        self._serve = serve
        self._channel = channel
        self._subprotocol = subprotocol
        self._worker = worker
        self._cbor = subprotocol.endswith("cbor")
        self._offset: int | None = None
        self._epoch: str | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """MonitoredTask until cancelled; started once the first snapshot has come."""
        while True:
            with suppress(*LOST):
                pid = self._worker if self._worker in self._serve.worker_pids() else None
                async with connect_to(self._serve, pid, self._subprotocol) as client:
                    await self._follow(client, task_status)
            await trio.sleep(_AGAIN_SECONDS)

    async def _follow(self, client: RawClient, task_status: trio.TaskStatus[None]) -> None:
        """Subscribe where it is, and read until the connection ends or the subscription is refused."""
        self.connections += 1
        await self._subscribe(client)
        while True:
            message = await client.message()
            if message.opcode not in (Opcode.TEXT, Opcode.BINARY):
                return
            envelope = (decode_cbor if self._cbor else decode_json)(message.payload)
            if envelope.type == MessageType.ERR:
                return
            known = self._offset is not None
            self._take(envelope)
            if not known and self._offset is not None and self.connections == 1:
                task_status.started()

    async def _subscribe(self, client: RawClient) -> None:
        where = Envelope(MessageType.SUB, channel=self._channel, id="s", offset=self._offset, epoch=self._epoch)
        if self._offset is None:
            where.data = {"snapshot": True, "lines": 1000}
        if self._cbor:
            await client.say(encode_cbor(where), Opcode.BINARY)
        else:
            await client.say(encode_json(where))

    def _take(self, envelope: Envelope) -> None:
        if envelope.type == MessageType.OK:
            self._epoch = self._epoch or envelope.epoch
        elif envelope.type == MessageType.GAP:
            self.gaps += 1
            self._offset, self._epoch = envelope.value["to"], envelope.epoch
        elif envelope.event == "task_snapshot":
            self._begin(envelope)
        elif envelope.type == MessageType.PUB and (self._offset is None or (envelope.offset or 0) > self._offset):
            if envelope.previous is not None and self._offset is not None and envelope.previous > self._offset:
                self.faults.append(f"after {self._offset} came {envelope.offset}, which follows on {envelope.previous}")
            self._offset = envelope.offset
            self._fold(envelope)

    def _begin(self, envelope: Envelope) -> None:
        data = envelope.value
        self._offset = envelope.offset
        self.snapshot = msgspec.convert(data["snapshot"], Snapshot)
        for batch in data["output"]:
            self._note_lines(batch["attempt"], batch["first"], batch["lines"])

    def _fold(self, envelope: Envelope) -> None:
        event = event_of(envelope)
        if event != "task_progress":
            self.events.append(envelope.event or "")
        if event is None:
            return
        try:
            data = data_of(envelope, event)
            self.snapshot = apply(self.snapshot, event, data, envelope.time or 0)
        except MessageError:
            return  # history is as the producer said it
        lines = data.lines or []
        self._note_lines(self.snapshot.attempt, self.snapshot.lines - len(lines), lines)

    def _note_lines(self, attempt: int, first: int, lines: Sequence[str]) -> None:
        for number, line in enumerate(lines, first):
            if self.lines.setdefault((attempt, number), line) != line:
                self.faults.append(f"line {number} of attempt {attempt} was {self.lines[attempt, number]}, is {line}")


class PlainViewer:
    """A viewer in the plain dialect, which knows no offsets: it asks for the state whenever it connects."""

    def __init__(self, serve: Serve, channel: str) -> None:
        self.status: dict[str, Any] = {}
        """The newest answer to its question."""
        self.states: list[str] = []
        """Of the events that it was sent live."""
        self._serve = serve
        self._channel = channel

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        begun = False
        while True:
            with suppress(*LOST):
                async with connect("127.0.0.1", self._serve.port, None) as client:
                    await client.say({"type": "subscribe", "channel": self._channel})
                    await self._ask(client)
                    while True:
                        frame = await client.json()
                        if frame["type"] == "status":
                            self.status = frame
                        elif "state" in (frame.get("data") or ()):
                            self.states.append(frame["data"]["state"])
                        if frame["type"] == "subscription_result" and not begun:
                            begun = True
                            task_status.started()
                        if self.states[-1:] == ["completed"] or frame["type"] == "error":
                            await self._ask(client)
                            self.states.append("asked")
            await trio.sleep(_AGAIN_SECONDS)

    async def _ask(self, client: RawClient) -> None:
        await client.say({"type": "get_status", "task_id": self._channel.partition(":")[2]})


def has_ended(viewer: Viewer) -> bool:
    return viewer.snapshot.ended_for_good


def worker_of(serve: Serve, client: RawClient) -> int:
    """Process id of the worker that serves a connection, by the inode of its socket there."""
    own = client.stream.socket.getsockname()[1]
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = row.split()[:10]
        if (int(local[-4:], 16), int(remote[-4:], 16)) == (serve.port, own):
            for pid in serve.worker_pids():
                if any(_is(path, f"socket:[{inode}]") for path in Path(f"/proc/{pid}/fd").iterdir()):
                    return pid
    raise AssertionError(f"no worker has the connection from port {own}")


def _is(path: Path, target: str) -> bool:
    try:
        return str(path.readlink()) == target
    except OSError:
        return False


@asynccontextmanager
async def connect_to(
    serve: Serve, worker: int | None, subprotocol: str | None = "fanline.v1.json"
) -> AsyncIterator[RawClient]:
    """An open WebSocket on a particular worker, by its process id: the kernel spreads, so we try again. None: any."""
    while True:
        async with connect("127.0.0.1", serve.port, subprotocol) as client:
            if worker is None or worker_of(serve, client) == worker:
                yield client
                return
