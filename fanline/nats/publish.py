"""Publishing to NATS from a Trio program, one connection and no tasks of its own."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio
from msgspec.structs import replace

from fanline.nats.answers import store_answer
from fanline.nats.connection import ANSWER_SECONDS, NatsClient, open_nats
from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import Envelope, check_texts, encode_json
from fanline.protocol.nats.client_protocol import PING, NatsAddress, NatsError, NatsMessage, publish_command
from fanline.protocol.nats.names import MESSAGE_ID, deduplication_id
from fanline.protocol.nats.subjects import to_subject


class NatsPublisher:
    """Made by `open_nats_publisher`. Safe for many tasks.

    What the server says is read only in `is_stored` and `flush`, its pings among it: call one at least once a minute.
    """

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._lock = trio.Lock()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._listening = False
        self._pings = client.pongs
        self._answers: list[NatsMessage] = []
        self._unstored = 0  # messages whose storing has not been confirmed

    async def is_stored(self, channel: str) -> bool:
        """Whether a stream stores what is published to a channel: whether it is durable. Raises NatsError.

        JetStream knows; that no answer comes to a message would prove nothing.
        """
        async with self._lock:
            request = msgspec.json.encode({"subject": to_subject(check_channel(channel))})
            await self._ask(publish_command("$JS.API.STREAM.NAMES", request, reply=self._inbox))
            await self._receive_until(lambda: bool(self._answers), "JetStream")
            return bool(store_answer(self._answers.pop(0).payload).streams)

    async def publish(self, envelope: Envelope, *, stored: bool = False) -> None:
        """Send an envelope to its channel, in order. Only `flush` tells whether NATS took it. Raises NatsError.

        `stored`: then `flush` waits until JetStream has stored it, too; for a channel that `is_stored`. The id makes
        JetStream take a repeat only once, the same as on a WebSocket without a user.
        """
        subject = to_subject(check_channel(envelope.channel or ""))
        check_texts(envelope)
        payload, info = encode_json(replace(envelope, channel=None)), self._client.info
        if len(payload) > info.max_payload:
            raise NatsError(f"message of {len(payload)} bytes, but the NATS server takes {info.max_payload}")
        # One stream holds all channels of a namespace, and an id belongs to one channel.
        headers = (
            {MESSAGE_ID: deduplication_id(envelope.channel or "", envelope.id)}
            if envelope.id and info.headers
            else None
        )
        command = publish_command(subject, payload, headers, reply=self._inbox if stored else "")
        async with self._lock:
            if stored:
                self._unstored += 1
                await self._ask(command)
            else:
                await self._client.send(command)

    async def flush(self) -> None:
        """Return when the server has taken everything published before, and stored what was to be stored.

        Raises NatsError with its complaint; what it concerns of that is not known then.
        """
        async with self._lock:
            await self._client.send(PING)
            self._pings += 1
            await self._receive_until(lambda: self._client.pongs >= self._pings, "the NATS server")
            while self._unstored:
                await self._receive_until(lambda: bool(self._answers), "JetStream")
                self._unstored -= 1
                store_answer(self._answers.pop(0).payload)

    async def _ask(self, command: bytes) -> None:
        """Send what is answered to our inbox."""
        if not self._listening:
            self._listening = True
            command = self._client.subscription(self._inbox, self._answers.append)[1] + command
        await self._client.send(command)

    async def _receive_until(self, satisfied: Callable[[], bool], who: str) -> None:
        """Raises NatsError if `who` stays silent."""
        while not satisfied():
            with trio.move_on_after(ANSWER_SECONDS) as scope:
                await self._client.receive()
            if scope.cancelled_caught:
                raise NatsError(f"{who} did not answer within {ANSWER_SECONDS:g} seconds")


@asynccontextmanager
async def open_nats_publisher(address: NatsAddress) -> AsyncIterator[NatsPublisher]:
    """Connect to a nats-server; on the way out everything published is flushed. Raises NatsError."""
    async with open_nats(address) as client:
        publisher = NatsPublisher(client)
        yield publisher
        await publisher.flush()
