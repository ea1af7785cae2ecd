"""`fanline.publish`, and the thread that carries what it is given to NATS: one per process and NATS.

It starts with the first message and stays connected until the program ends.
"""

import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from fanline.errors import NotPublished
from fanline.local import NoServer
from fanline.nats.settings import environment_options, given_options
from fanline.nats.thread import NatsThread, lock
from fanline.plain import plain
from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import Envelope, check_texts, encode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import producer_store_id
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.subjects import to_subject
from fanline.publishing.lane import NEVER_REACHED_SECONDS, OutgoingMessage
from fanline.publishing.outgoing import EXIT_SECONDS, Outgoing
from fanline.publishing.receipt import Receipt, finish_warnings

MAX_WAITING = 10_000
"""Messages of one thread that are not yet published."""
MAX_WAITING_BYTES = 16 << 20
"""Of those."""


def publish(
    channel: str,
    data: Any = None,
    *,
    event: str | None = None,
    x: Mapping[str, Any] | None = None,
    deduplication_id: str | None = None,
    nats: str | NatsOptions | None = None,
) -> Receipt:
    """Publish a value to a channel, from asyncio, Trio or plain code. Returns at once; a thread carries it to NATS.

    The receipt tells when it is done: `await` it, or call its `wait()` in plain code. On a durable channel that is when
    the message is stored: it survives a lost connection, is sent again for up to 30 seconds, and is stored once. On an
    ephemeral channel it is when NATS has accepted it, and it is sent at most once. A failure that nobody asks for is
    logged as a warning. Messages of one channel keep their order.

    `data` is whatever JSON can hold; dataclasses, dates and the like are converted. `x` are extra attributes.
    `deduplication_id` (16 to 128 characters, such as a UUID) makes it safe to publish again within two minutes.
    `nats` is one URL, several separated by commas, or a NatsOptions; by default $FANLINE_NATS, $NATS_URL, or else the
    NATS of the `fanline serve` that runs on this machine.

    Raises NotPublished for what can never be published: not a channel, data that JSON cannot hold.
    """
    envelope = Envelope(event=event, extra=None if x is None else dict(x), deduplication_id=deduplication_id)
    try:
        envelope.data = plain(data)
    except (TypeError, ValueError) as error:
        raise NotPublished(f"data: {error}") from None
    return publish_envelope(channel, envelope, nats)


def publish_envelope(channel: str, envelope: Envelope, nats: str | NatsOptions | None = None) -> Receipt:
    """The same for an envelope, whose data JSON can hold; its own channel does not count."""
    message, deduplication_id = _outgoing(channel, envelope)
    message.done.set_running_or_notify_cancel()  # so that a wait that is cancelled does not cancel it for all
    _hand_over(message, nats)
    return Receipt(channel, deduplication_id, message.done)


class PublishingThread(NatsThread):
    """Carries the messages of this process to one NATS."""

    name = "fanline publisher"
    work = "the messages of this process"

    def __init__(self, nats: NatsOptions | None) -> None:
        super().__init__(nats)
        self._waiting: set[OutgoingMessage] = set()  # what is not done; guarded by the lock, as is the next
        self._bytes = 0
        self.user = self._outgoing = Outgoing(self.loop.requests, self._stop_if_idle)

    def add(self, message: OutgoingMessage) -> None:
        """Publish this too. The caller holds the lock."""
        count, size = len(self._waiting), message.size
        if count >= MAX_WAITING or self._bytes + size > MAX_WAITING_BYTES:
            message.refuse(
                f"{count} messages of {self._bytes} bytes are waiting for NATS already: wait for some of them"
            )
            return
        self._waiting.add(message)
        self._bytes += size
        message.done.add_done_callback(partial(self._release, message))
        self.loop.call_soon(self._outgoing.add, message)

    def find_options(self) -> NatsOptions:
        try:
            return super().find_options()
        except NoServer:
            raise NoServer(
                "no NATS is known: start `fanline serve` on this machine, set FANLINE_NATS, or pass nats="
            ) from None

    def finishing(self) -> float:
        """Publish what is left, within a bound."""
        seconds = EXIT_SECONDS if self._outgoing.reached else NEVER_REACHED_SECONDS
        self.loop.call_soon(self._outgoing.finish, time.monotonic() + seconds)
        return seconds + 1.0

    def ended(self) -> None:
        self._outgoing.end()
        with lock():
            left = list(self._waiting)  # what the loop has not come to
        for message in left:
            message.give_up("the thread that publishes has ended")
        finish_warnings()

    def _release(self, message: OutgoingMessage, _: object) -> None:
        with lock():
            self._waiting.discard(message)
            self._bytes -= message.size

    def _stop_if_idle(self) -> None:
        """The program ends. What comes after this gets another thread."""
        with lock():
            if self._waiting:
                return
            self.unregister()
        self.loop.stop()


def _outgoing(channel: str, envelope: Envelope) -> tuple[OutgoingMessage, str]:
    """The message, and its de-duplication id. Raises NotPublished."""
    try:
        subject = to_subject(check_channel(channel))
        check_texts(envelope)
    except MessageError as error:
        raise NotPublished(str(error)) from None
    once = envelope.deduplication_id or secrets.token_hex(16)
    envelope.channel = envelope.deduplication_id = None
    payload = encode_json(envelope)
    return OutgoingMessage(channel, subject, payload, producer_store_id(channel, once), time.monotonic()), once


def _hand_over(message: OutgoingMessage, nats: str | NatsOptions | None) -> None:
    try:
        options = given_options(nats) if nats else environment_options()
        with lock():
            thread = PublishingThread.current(options)
            thread.add(message)
        thread.start()
    except ValueError as error:  # a URL that is none
        raise NotPublished(str(error)) from None
    except OSError as error:  # too many open files
        message.refuse(str(error))
