"""Publishing to NATS from a Trio program, over one connection that a thread carries."""

import math
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from fanline.nats.loop import NatsLoop
from fanline.nats.pending import PendingAnswers
from fanline.producer.waiting import finish, wait
from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import Envelope, check_texts, encode_json
from fanline.protocol.nats.commands import header_bytes
from fanline.protocol.nats.names import MESSAGE_ID, Bucket, bucket_subject, producer_store_id
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.nats.subjects import to_subject


class NatsPublisher:
    """Opened by `open_nats_publisher`. Several tasks may use it; after its connection is lost it is of no more use."""

    def __init__(self, options: NatsOptions) -> None:
        self._loop = NatsLoop(lambda: options)
        self._answers = PendingAnswers(self._loop.requests, self._loop.stop, len(options.servers))
        self._futures: set[Future[Any]] = {self._answers.opened}  # what is waited for, until it is done
        self._failure: NatsError | None = None
        threading.Thread(target=self._work, name="fanline publisher", daemon=True).start()

    async def wait_open(self) -> None:
        """Wait for the connection. Raises NatsError."""
        await wait(self._answers.opened)

    async def is_stored(self, channel: str) -> bool:
        """Whether a channel is durable, that is, whether a stream stores what is published to it. Raises NatsError.

        JetStream is asked for it, since a message without an answer would prove nothing.
        """
        return bool(await self._ask(self._answers.find_stream, to_subject(check_channel(channel))))

    def publish(self, envelope: Envelope, *, stored: bool = False) -> None:
        """Send an envelope to its channel, in order. Only `flush` tells whether NATS accepted it. Raises NatsError.

        With `stored`, for a channel that `is_stored`, `flush` waits until JetStream has stored it too. Among what
        producers publish, JetStream stores an envelope with the same de-duplication id only once.
        """
        if self._failure is not None:
            raise self._failure
        subject = to_subject(check_channel(envelope.channel or ""))
        check_texts(envelope)
        payload = encode_json(replace(envelope, channel=None, deduplication_id=None))
        info = self._answers.opened.result(0)
        headers = _store_id_header(envelope) if info.headers else None
        size = len(payload) + header_bytes(headers)
        if size > info.max_payload:
            raise NatsError(f"the message has {size} bytes, the NATS server accepts at most {info.max_payload}")
        self._loop.call_soon(lambda: self._answers.publish(subject, payload, headers, stored=stored))

    def put(self, bucket: Bucket, key: str, value: bytes, seconds: float) -> None:
        """Set a key of a bucket, for `seconds` seconds. As with `publish`, only `flush` tells whether it is stored."""
        headers = {"Nats-TTL": f"{math.ceil(seconds)}s"}
        subject = bucket_subject(bucket, key)
        self._loop.call_soon(lambda: self._answers.publish(subject, value, headers, stored=True))

    async def flush(self) -> None:
        """Wait until the server has accepted everything published so far, and stored what is to be stored.

        Raises NatsError with the server's error, which does not tell which of the messages it is about.
        """
        await self._ask(self._answers.flush)

    def close(self) -> None:
        """What is not flushed may be lost."""
        self._loop.call_soon(self._loop.stop)

    async def _ask(self, question: Callable[..., None], *args: object) -> Any:
        """Ask in the loop's thread, and wait for the answer."""
        answer: Future[Any] = Future()
        self._futures.add(answer)
        self._loop.call_soon(question, *args, answer)
        if self._failure is not None:  # perhaps the loop has ended before it could be asked
            finish(answer, self._failure)
        try:
            return await wait(answer)
        finally:
            self._futures.discard(answer)

    def _work(self) -> None:
        try:
            self._loop.run(self._answers)
        finally:
            self._failure = self._answers.failure or NatsError("the publisher is closed")
            for future in list(self._futures):
                finish(future, self._failure)


@asynccontextmanager
async def open_nats_publisher(options: NatsOptions) -> AsyncIterator[NatsPublisher]:
    """Connect to NATS; everything published is flushed at the end of the block. Raises NatsError."""
    publisher = NatsPublisher(options)
    try:
        await publisher.wait_open()
        yield publisher
        await publisher.flush()
    finally:
        publisher.close()


def _store_id_header(envelope: Envelope) -> dict[str, str] | None:
    once = envelope.deduplication_id
    return None if once is None else {MESSAGE_ID: producer_store_id(envelope.channel or "", once)}
