"""Publishing to NATS from a Trio program, over one connection and without background tasks."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import trio
from msgspec.structs import replace

from fanline.nats.connection import ANSWER_SECONDS, NatsClient, open_nats
from fanline.nats.jetstream import check_answer
from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import Envelope, check_texts, encode_json
from fanline.protocol.nats.client_protocol import PING, NatsAddress, NatsError, NatsMessage, publish_command
from fanline.protocol.nats.names import MESSAGE_ID, deduplication_id
from fanline.protocol.nats.subjects import to_subject


class NatsPublisher:
    """Opened by `open_nats_publisher`. Several tasks may use it.

    What the server sends, including its pings, is read only in `is_stored` and `flush`: call one of them at least once
    a minute.
    """

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._lock = trio.Lock()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._listening = False
        self._pings = client.pongs
        self._answers: list[NatsMessage] = []
        self._unacknowledged = 0  # messages to be stored that JetStream has not confirmed

    async def is_stored(self, channel: str) -> bool:
        """Whether a channel is durable, that is, whether a stream stores what is published to it. Raises NatsError.

        JetStream is asked for it, since a message without an answer would prove nothing.
        """
        async with self._lock:
            request = msgspec.json.encode({"subject": to_subject(check_channel(channel))})
            await self._ask(publish_command("$JS.API.STREAM.NAMES", request, reply=self._inbox))
            await self._receive_until(lambda: bool(self._answers), "JetStream")
            return bool(check_answer(self._answers.pop(0).payload).streams)

    async def publish(self, envelope: Envelope, *, stored: bool = False) -> None:
        """Send an envelope to its channel, in order. Only `flush` tells whether NATS accepted it. Raises NatsError.

        With `stored`, for a channel that `is_stored`, `flush` waits until JetStream has stored it too. JetStream stores
        an envelope with the same ID only once, as it does for a WebSocket client without a user.
        """
        subject = to_subject(check_channel(envelope.channel or ""))
        check_texts(envelope)
        payload, info = encode_json(replace(envelope, channel=None)), self._client.info
        if len(payload) > info.max_payload:
            raise NatsError(f"the message has {len(payload)} bytes, the NATS server accepts at most {info.max_payload}")
        headers = _deduplication_header(envelope) if envelope.id and info.headers else None
        command = publish_command(subject, payload, headers, reply=self._inbox if stored else "")
        async with self._lock:
            if stored:
                self._unacknowledged += 1
                await self._ask(command)
            else:
                await self._client.send(command)

    async def flush(self) -> None:
        """Wait until the server has accepted everything published so far, and stored what is to be stored.

        Raises NatsError with the server's error, which does not tell which of the messages it is about.
        """
        async with self._lock:
            await self._client.send(PING)
            self._pings += 1
            await self._receive_until(lambda: self._client.pongs >= self._pings, "the NATS server")
            while self._unacknowledged:
                await self._receive_until(lambda: bool(self._answers), "JetStream")
                self._unacknowledged -= 1
                check_answer(self._answers.pop(0).payload)

    async def _ask(self, command: bytes) -> None:
        """Send a command whose answer comes to our inbox."""
        if not self._listening:
            self._listening = True
            command = self._client.subscription(self._inbox, self._answers.append)[1] + command
        await self._client.send(command)

    async def _receive_until(self, satisfied: Callable[[], bool], who: str) -> None:
        """Receive until the condition holds. Raises NatsError if `who`, on whom that depends, stays silent."""
        while not satisfied():
            with trio.move_on_after(ANSWER_SECONDS) as scope:
                await self._client.receive()
            if scope.cancelled_caught:
                raise NatsError(f"{who} did not answer within {ANSWER_SECONDS:g} seconds")


@asynccontextmanager
async def open_nats_publisher(address: NatsAddress) -> AsyncIterator[NatsPublisher]:
    """Connect to a nats-server; everything published is flushed at the end of the block. Raises NatsError."""
    async with open_nats(address) as client:
        publisher = NatsPublisher(client)
        yield publisher
        await publisher.flush()


def _deduplication_header(envelope: Envelope) -> dict[str, str]:
    """The ID with the channel, since one stream holds all channels of a namespace."""
    return {MESSAGE_ID: deduplication_id(envelope.channel or "", envelope.id or "")}
