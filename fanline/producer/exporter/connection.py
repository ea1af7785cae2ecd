"""One connection of the exporter to NATS: sends commands soon and in order, and routes answers to whoever asked."""

import secrets
from collections.abc import Mapping

import trio

from fanline.nats.connection import ANSWER_SECONDS, MessageHandler, NatsClient
from fanline.protocol.nats.client_protocol import PING, NatsError, NatsMessage, publish_command

PING_SECONDS = 10.0
"""A server that has been silent for this long after a ping is considered gone."""


class ProducerConnection:
    """Sync methods that queue commands, and the three tasks that move the bytes: `read`, `write` and `watch`."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._unsent = bytearray()
        self._has_unsent = trio.Event()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._requests: dict[str, MessageHandler] = {}
        self._last_request = 0
        self.subscribe(f"{self._inbox}.*", self._take_answer)

    @property
    def max_payload(self) -> int:
        """Largest message that the server accepts, in bytes, including headers."""
        return self._client.info.max_payload

    def publish(self, subject: str, payload: bytes) -> None:
        self._send_soon(publish_command(subject, payload))

    def ask(
        self, subject: str, payload: bytes, handler: MessageHandler, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish a request; `handler` gets the answer, if one comes."""
        self._last_request += 1
        self._requests[str(self._last_request)] = handler
        self._send_soon(publish_command(subject, payload, headers, reply=f"{self._inbox}.{self._last_request}"))

    async def request(self, subject: str, payload: bytes) -> NatsMessage:
        """The answer to a request. Raises NatsError if there is none in time."""
        answered, answers = trio.Event(), list[NatsMessage]()

        def take(message: NatsMessage) -> None:
            answers.append(message)
            answered.set()

        self.ask(subject, payload, take)
        with trio.move_on_after(ANSWER_SECONDS):
            await answered.wait()
        if not answers:
            raise NatsError(f"no answer to {subject} within {ANSWER_SECONDS:g} seconds")
        return answers[0]

    def subscribe(self, subject: str, handler: MessageHandler) -> int:
        """Call `handler`, which must not raise, with each message of a subject. Returns the subscription's ID."""
        sid, command = self._client.subscription(subject, handler)
        self._send_soon(command)
        return sid

    def unsubscribe(self, sid: int) -> None:
        self._send_soon(self._client.unsubscription(sid))

    async def read(self) -> None:
        """Handle what arrives, forever. Raises NatsError."""
        while True:
            await self._client.receive()

    async def write(self) -> None:
        """Send what is queued, forever. Raises NatsError."""
        while True:
            await self._has_unsent.wait()
            self._has_unsent = trio.Event()
            data, self._unsent = bytes(self._unsent), bytearray()
            await self._client.send(data)

    async def watch(self) -> None:
        """Ping the server, forever. Raises NatsError when it stays silent."""
        while True:
            received = self._client.received
            self._send_soon(PING)
            await trio.sleep(PING_SECONDS)
            if self._client.received == received:
                raise NatsError(f"the NATS server did not answer a ping within {PING_SECONDS:g} seconds")

    def _send_soon(self, command: bytes) -> None:
        self._unsent += command
        self._has_unsent.set()

    def _take_answer(self, message: NatsMessage) -> None:
        handler = self._requests.pop(message.subject.rpartition(".")[2], None)
        if handler is not None:
            handler(message)
