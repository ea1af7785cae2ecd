"""Viewers of a task that reconnect for ever. They fold with fanline.protocol.tasks, and note in `faults` what does not
fit instead of repairing it.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import trio

from fanline.protocol.envelope import Envelope, MessageType, decode_cbor, decode_json, encode_cbor, encode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import data_of, event_of
from fanline.protocol.tasks.fold import apply
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.websocket.frames import Opcode
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve
from tests.support.tasks.on_worker import connect_to

_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
_RETRY_SECONDS = 0.05


class ResumingViewer:
    """A viewer in the JSON or CBOR dialect that resumes from its offset whenever it loses its connection.

    `worker`: process id of the worker to connect to for as long as that lives; None: any.
    """

    def __init__(
        self, serve: Serve, channel: str, subprotocol: str = "fanline.v1.json", worker: int | None = None
    ) -> None:
        self.snapshot = Snapshot()
        self.lines: dict[tuple[int, int], str] = {}
        """(attempt, number) -> output line."""
        self.events: list[str] = []
        """The name of every event it was sent, also of those that do not fit; without progress."""
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
        """Watch until cancelled; started once the first snapshot is here."""
        while True:
            with suppress(*_LOST):
                pid = self._worker if self._worker in self._serve.worker_pids() else None
                async with connect_to(self._serve, pid, self._subprotocol) as client:
                    await self._follow(client, task_status)
            await trio.sleep(_RETRY_SECONDS)

    async def _follow(self, client: RawClient, task_status: trio.TaskStatus[None]) -> None:
        """Subscribe from where it is, and read until the connection ends or the subscription is refused."""
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
            if (envelope.value or {}).get("recovered", True):  # otherwise a gap comes first
                self._epoch = envelope.epoch
        elif envelope.type == MessageType.GAP:
            self.gaps += 1
            self._offset, self._epoch = envelope.value["to"], envelope.epoch
        elif envelope.event == "task_snapshot":
            self._begin(envelope)
        elif envelope.type == MessageType.PUB and (self._offset is None or (envelope.offset or 0) > self._offset):
            if envelope.previous is not None and self._offset is not None and envelope.previous > self._offset:
                self.faults.append(f"after {self._offset} came {envelope.offset}, which follows on {envelope.previous}")
            self._offset, self._epoch = envelope.offset, envelope.epoch or self._epoch
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
            return  # a history contains what the producer said, fitting or not
        lines = data.lines or []
        self._note_lines(self.snapshot.attempt, self.snapshot.lines - len(lines), lines)

    def _note_lines(self, attempt: int, first: int, lines: Sequence[str]) -> None:
        for number, line in enumerate(lines, first):
            if self.lines.setdefault((attempt, number), line) != line:
                self.faults.append(f"line {number} of attempt {attempt} was {self.lines[attempt, number]}, is {line}")


class PlainViewer:
    """A viewer in the plain dialect, which has no offsets: it asks for the state whenever it connects."""

    def __init__(self, serve: Serve, channel: str) -> None:
        self.status: dict[str, Any] = {}
        """The newest answer."""
        self.states: list[str] = []
        """The state in each live event, and "asked" where it has asked again."""
        self._serve = serve
        self._channel = channel

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        begun = False
        while True:
            with suppress(*_LOST):
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
            await trio.sleep(_RETRY_SECONDS)

    async def _ask(self, client: RawClient) -> None:
        await client.say({"type": "get_status", "task_id": self._channel.partition(":")[2]})


def has_ended(viewer: ResumingViewer) -> bool:
    return viewer.snapshot.ended_for_good
