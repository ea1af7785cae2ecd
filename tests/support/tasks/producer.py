"""A task's producer on real NATS, which survives outages: an event is stored before the next one is said."""

import itertools
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import trio

from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.commands import PING, PONG, Login, hello, publish, subscribe
from fanline.protocol.nats.names import MESSAGE_ID, producer_store_id
from fanline.protocol.nats.parser import NatsMessage, Parser
from fanline.protocol.nats.replies import ServerInfo
from fanline.protocol.nats.subjects import to_subject
from tests.support.servers.serve import Serve

OK = b'{"v":1,"t":"ok","d":{"done":true}}'
_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_RETRY_SECONDS = 0.05
_ACK_SECONDS = 2.0
_CALLS, _ACKS = 1, 2  # our subscription ids


class NatsProducer:
    """The producer of one task."""

    def __init__(self, serve: Serve, channel: str) -> None:
        self.calls: list[dict[str, Any]] = []
        """The calls it has received, oldest first."""
        self.answer: Callable[[dict[str, Any]], bytes] = lambda call: OK
        """Makes the reply to a call."""
        self.connections = 0
        self._serve = serve
        self._channel = channel
        self._subject = to_subject(channel)
        self._inbox = f"_INBOX.{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._acks: dict[str, trio.Event] = {}
        self._stream: trio.SocketStream | None = None  # while connected
        self._sending = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Stay connected until cancelled."""
        while True:
            with suppress(*_LOST):
                await self._connect_and_read(task_status)
            self._stream = None
            await trio.sleep(_RETRY_SECONDS)

    async def say(self, event: str, **data: Any) -> None:
        """Publish an event, again and again until the stream has it."""
        name = f"{self._inbox}-{next(self._numbers)}"
        payload = encode_json(Envelope(id=name, event=event, data=data, time=time.time_ns() // 1_000_000))
        while not await self._store(name, payload):
            await trio.sleep(_RETRY_SECONDS)

    async def _store(self, name: str, payload: bytes) -> bool:
        reply = f"{self._inbox}.{next(self._numbers)}"
        stored = self._acks[reply] = trio.Event()
        headers = {MESSAGE_ID: producer_store_id(self._channel, name)}
        with suppress(*_LOST), trio.move_on_after(_ACK_SECONDS):
            if self._stream is not None:
                await self._send(self._stream, publish(self._subject, payload, headers, reply=reply))
                await stored.wait()
        return stored.is_set()

    async def _connect_and_read(self, task_status: trio.TaskStatus[None]) -> None:
        address = parse_url(self._serve.producer_url)  # another one after a new start
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            control = self._subject.replace("fanline.pub.", "fanline.ctl.", 1)
            login = hello(ServerInfo(), Login(address.user, address.password), name="", tls=False)
            ours = subscribe(control, _CALLS) + subscribe(f"{self._inbox}.>", _ACKS)
            await stream.send_all(login + ours + PING)
            parser, pongs = Parser(), 0
            while data := await stream.receive_some():
                for one in parser.feed(data):
                    if isinstance(one, NatsMessage):
                        await self._take(stream, one)
                    elif one.verb == "PING":
                        await self._send(stream, PONG)
                    elif one.verb == "PONG":
                        pongs += 1
                        if pongs == 2:  # the first one answers the login
                            self._ready(stream, task_status)

    def _ready(self, stream: trio.SocketStream, task_status: trio.TaskStatus[None]) -> None:
        """NATS has taken our subscriptions."""
        self._stream = stream
        self.connections += 1
        if self.connections == 1:
            task_status.started()

    async def _take(self, stream: trio.SocketStream, message: NatsMessage) -> None:
        if message.sid == _ACKS:
            if message.status is None and "error" not in msgspec.json.decode(message.payload):
                self._acks[message.subject].set()  # a refusal has a `seq`, too: 0
            return
        asked = msgspec.json.decode(message.payload)
        if asked["t"] == "ping":
            await self._send(stream, publish(message.reply, b""))
        elif asked["t"] == "call":
            self.calls.append(asked)
            await self._send(stream, publish(message.reply, self.answer(asked)))

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        async with self._sending:
            await stream.send_all(data)
