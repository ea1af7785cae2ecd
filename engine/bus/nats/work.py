"""Work queues on JetStream: streams with the retention `workqueue`, and pull consumers that acknowledge explicitly.

Sources: the JetStream API subjects `$JS.API.CONSUMER.*`; ADR-15 (the reply subject of a message that was given out,
by which it is acknowledged) of the NATS architecture documents.
"""

import secrets
from typing import NamedTuple

import msgspec
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.bus import NatsBus
from fanline.engine.bus.nats.jetstream import JetStreamError, api_reply, entry_of, read_request
from fanline.engine.bus.nats.requests.requests import REQUEST_TIMEOUT
from fanline.engine.bus.nats.streams.work_streams import taker_config
from fanline.engine.bus.stored import KvEntry
from fanline.engine.bus.work import Taker, WorkItem, WorkQueue
from fanline.protocol.nats.names import MESSAGE_ID
from fanline.protocol.nats.parser import NatsMessage

_PULL_SECONDS = 5.0  # JetStream answers a pull by then, if only that there is nothing
_NOTHING = (404, 408)  # the pull has ended without an item
_NOT_THERE, _WRONG_LAST = (10037, 10057), 10071  # err_code of a reply


class _Place(NamedTuple):
    """What the reply subject of an item says."""

    attempt: int
    number: int
    asked: float


class NatsWork:
    """See engine/bus/work.py for the promises."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus

    async def put(self, subject: str, payload: bytes, store_id: str | None = None, *, once: bool = False) -> bool:
        await self._bus.wait_room(len(payload))
        headers = {} if store_id is None else {MESSAGE_ID: store_id}
        if once:
            headers["Nats-Expected-Last-Subject-Sequence"] = "0"
        (reply,) = await self._bus.request(subject, payload, headers=headers)
        try:
            return not api_reply(reply.payload).get("duplicate", False)
        except JetStreamError as error:
            if once and error.number == _WRONG_LAST:
                return False
            raise

    async def ensure(self, queue: WorkQueue) -> None:
        config = {"stream_name": queue.stream, "config": taker_config(queue)}
        verb, where = "CONSUMER.DURABLE.CREATE", f"{queue.stream}.{queue.name}"
        await self._bus.api(verb, where, msgspec.json.encode(config))

    def taker(self, queue: WorkQueue) -> Taker:
        return _NatsTaker(self._bus, queue)

    async def newest(self, stream: str, subject: str) -> bytes | None:
        question = msgspec.json.encode({"last_by_subj": subject})
        (reply,) = await self._bus.question(f"$JS.API.DIRECT.GET.{stream}", question)
        return None if reply.status == 404 else reply.payload

    async def look(self, stream: str, subject: str, after: int, most: int) -> dict[int, KvEntry]:
        question = read_request(subject, after + 1, most)
        messages, _ = await self._bus.read_stored(stream, question)
        return {entry.revision: entry for entry in map(entry_of, messages)}

    async def keep_newest(self, stream: str, subject: str, most: int) -> None:
        await self._bus.api("STREAM.PURGE", stream, msgspec.json.encode({"filter": subject, "keep": most}))

    async def remove(self, stream: str, number: int) -> bool:
        try:
            await self._bus.api("STREAM.MSG.DELETE", stream, msgspec.json.encode({"seq": number}))
        except JetStreamError as error:
            if error.number in _NOT_THERE:
                return False
            raise
        return True


class _NatsTaker:
    """Has a subscription of its own, on which what it has pulled arrives: one item a pull."""

    def __init__(self, bus: NatsBus, queue: WorkQueue) -> None:
        self._bus = bus
        self._queue = queue
        self._inbox = f"{bus.inbox}.{secrets.token_hex(6)}.work"
        self._send, self._arrived = trio.open_memory_channel[NatsMessage](16)
        bus.listen(self._inbox, self._take)

    def _take(self, message: NatsMessage) -> None:
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            return  # it is given out again, as it is not acknowledged

    async def take(self) -> WorkItem:
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._queue.stream}.{self._queue.name}"
        pull = msgspec.json.encode({"batch": 1, "expires": round(_PULL_SECONDS * 1e9)})
        while True:
            if not self._arrived.statistics().current_buffer_used:
                self._bus.send(subject, pull, reply=self._inbox)
            with trio.move_on_after(_PULL_SECONDS + 1):
                message = await self._arrived.receive()
                if message.status is None:
                    return _NatsItem(self._bus, message)
                if message.status not in _NOTHING:
                    raise BusError(f"{self._queue.stream} gives nothing to {self._queue.name}: {message.status}")


class _NatsItem:
    """An item that JetStream has given out."""

    def __init__(self, bus: NatsBus, message: NatsMessage) -> None:
        self.payload, self.subject = message.payload, message.subject
        self.attempt, self.number, self.asked = _place_of(message.reply)
        self._bus = bus
        self._reply = message.reply

    async def done(self) -> None:
        await self._bus.request(self._reply, b"+ACK", seconds=REQUEST_TIMEOUT)

    async def later(self, seconds: float) -> None:
        await self._bus.request(self._reply, b'-NAK {"delay": %d}' % round(seconds * 1e9), seconds=REQUEST_TIMEOUT)

    def working(self) -> None:
        self._bus.tell(self._reply, b"+WPI")


def _place_of(reply: str) -> _Place:
    """`$JS.ACK.[domain.account.]stream.consumer.attempt.number.count.nanoseconds.pending[.token]`."""
    parts = reply.split(".")
    attempt, number, _, asked = parts[6:10] if len(parts) > 9 else parts[4:8]
    return _Place(int(attempt), int(number), int(asked) / 1e9)
