"""One connection of the courier: what is posted goes out soon and in order, answers find whoever asked."""

import secrets
from collections.abc import Mapping

import trio

from fanline.nats.connection import ANSWER_SECONDS, NatsClient, Take
from fanline.protocol.nats.client_protocol import PING, NatsError, NatsMessage, publish_command

PING_SECONDS = 10.0
"""A server that does not answer a ping for so long is gone."""


class Link:
    """Sync methods for the courier's own thread, and `run`, which moves the bytes."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._out = bytearray()
        self._filled = trio.Event()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._asked: dict[str, Take] = {}
        self._number = 0
        self.listen(f"{self._inbox}.*", self._answered)

    @property
    def max_payload(self) -> int:
        """Bytes; headers count."""
        return self._client.info.max_payload

    def publish(self, subject: str, payload: bytes) -> None:
        self._post(publish_command(subject, payload))

    def ask(self, subject: str, payload: bytes, take: Take, headers: Mapping[str, str] | None = None) -> None:
        """Publish a request; `take` gets the answer, if there is one."""
        self._number += 1
        self._asked[str(self._number)] = take
        self._post(publish_command(subject, payload, headers, reply=f"{self._inbox}.{self._number}"))

    async def request(self, subject: str, payload: bytes) -> NatsMessage:
        """The answer to a request. NatsError if there is none."""
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

    def listen(self, subject: str, take: Take) -> int:
        """Hear a subject's messages; `take` must not raise. Returns what `ignore` wants."""
        sid, command = self._client.subscription(subject, take)
        self._post(command)
        return sid

    def ignore(self, sid: int) -> None:
        self._post(self._client.unsubscription(sid))

    async def read(self) -> None:
        """Handle what comes, for ever. Raises NatsError."""
        while True:
            await self._client.receive()

    async def write(self) -> None:
        """Send what is posted, for ever. Raises NatsError."""
        while True:
            await self._filled.wait()
            self._filled = trio.Event()
            data, self._out = bytes(self._out), bytearray()
            await self._client.send(data)

    async def watch(self) -> None:
        """Raises NatsError when the server does not answer pings."""
        while True:
            heard = self._client.heard
            self._post(PING)
            await trio.sleep(PING_SECONDS)
            if self._client.heard == heard:
                raise NatsError(f"the NATS server did not answer a ping for {PING_SECONDS:g} seconds")

    def _post(self, command: bytes) -> None:
        self._out += command
        self._filled.set()

    def _answered(self, message: NatsMessage) -> None:
        take = self._asked.pop(message.subject.rpartition(".")[2], None)
        if take is not None:
            take(message)
