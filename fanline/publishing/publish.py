"""`fanline.publish`, and the thread that carries what it is given to NATS: one per process and NATS.

It starts with the first message and stays connected until the program ends.
"""

import os
import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from fanline.base.plain import plain
from fanline.errors import NotPublished
from fanline.local import TOKEN_VARIABLE, NoServer
from fanline.nats.settings import environment_options, given_options
from fanline.nats.thread import NatsThread, lock
from fanline.protocol.channels import check_channel
from fanline.protocol.compat.board import BoardUpdate, encode_update
from fanline.protocol.envelope import Envelope, check_texts, encode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import BOARD_SUBJECT, producer_store_id
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.subjects import to_subject
from fanline.protocol.tasks.publications import check_publication, is_default_task
from fanline.publishing.lane import DURABLE_SECONDS, NEVER_REACHED_SECONDS, OutgoingMessage
from fanline.publishing.outgoing import EXIT_SECONDS, Outgoing
from fanline.publishing.receipt import Receipt, finish_warnings
from fanline.publishing.way import server_to_publish_through

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
    url: str | None = None,
    token: str | None = None,
) -> Receipt:
    """Publish a value to a channel, from asyncio, Trio or plain code. Returns at once; a thread carries it to NATS, or,
    where there is none, through a server.

    The receipt tells when it is done: `await` it, or call its `wait()` in plain code. On a durable channel that is when
    the message is stored: it survives a lost connection, is sent again for up to 30 seconds, and is stored once. On an
    ephemeral channel it is when NATS has accepted it, and it is sent at most once. A failure that nobody asks for is
    logged as a warning. Messages of one channel keep their order.

    `data` is whatever JSON can hold; dataclasses, dates and the like are converted. `x` are extra attributes.
    `deduplication_id` (16 to 128 characters, such as a UUID) makes it safe to publish again within two minutes.
    `nats` is one URL, several separated by commas, or a NatsOptions. `url` is that of a server (ws://host:port/ws),
    through which the message goes instead, with the rights of `token`, by default $FANLINE_TOKEN. A token alone is for
    the server in $FANLINE_URL, or else for the `fanline serve` on this machine. If none of them is given, the first of
    these counts: $FANLINE_NATS or $NATS_URL; the server $FANLINE_URL, if it is elsewhere; the NATS of the `fanline
    serve` on this machine, if there are several of the one that $FANLINE_URL names. `fanline pub` has the same rule.

    Raises NotPublished for what can never be published: not a channel, data that JSON cannot hold.
    """
    envelope = Envelope(event=event, extra=None if x is None else dict(x), deduplication_id=deduplication_id)
    return _publish(channel, envelope, data, nats=nats, url=url, token=token, keep=DURABLE_SECONDS)


def publish_for(
    seconds: float, channel: str, data: Any, *, event: str, nats: str | NatsOptions | None = None
) -> Receipt:
    """The same for a message that is sent again for `seconds` seconds if the channel is durable, even if NATS was never
    reached.
    """
    return _publish(channel, Envelope(event=event), data, nats=nats, url=None, token=None, keep=seconds)


def _publish(
    channel: str,
    envelope: Envelope,
    data: Any,
    *,
    nats: str | NatsOptions | None,
    url: str | None,
    token: str | None,
    keep: float,
) -> Receipt:
    try:
        envelope.data = plain(data)
    except (TypeError, ValueError) as error:
        raise NotPublished(f"data: {error}") from None
    try:
        server = server_to_publish_through(nats=nats, url=url, token=token)
    except ValueError as error:
        raise NotPublished(str(error)) from None
    except NoServer as error:
        return _refused(channel, envelope, error)
    if server is None:
        return publish_envelope(channel, envelope, nats, keep=keep)
    return _publish_to_server(channel, envelope, server, token or os.environ.get(TOKEN_VARIABLE) or None)


def publish_envelope(
    channel: str, envelope: Envelope, nats: str | NatsOptions | None = None, *, keep: float = DURABLE_SECONDS
) -> Receipt:
    """The same for an envelope, whose data JSON can hold; its own channel does not count."""
    message, deduplication_id = _outgoing(channel, envelope)
    message.keep = keep
    return hand_over(message, deduplication_id, nats)


def publish_update(update: BoardUpdate) -> Receipt:
    """Tell the engine of an item of a task board. The receipt is done when all whom it concerns are told, and the item
    is remembered.
    """
    try:
        payload = encode_update(update)
    except MessageError as error:
        raise NotPublished(str(error)) from None
    message = OutgoingMessage(f"item {update.item}", BOARD_SUBJECT, payload, update.id, time.monotonic())
    return hand_over(message, update.id, None)


def _refused(channel: str, envelope: Envelope, why: NoServer) -> Receipt:
    """The receipt of a message for which there is no server at the moment."""
    message, deduplication_id = _outgoing(channel, envelope)
    message.refuse(str(why))
    return Receipt(message.channel, deduplication_id, message.done)


def _publish_to_server(channel: str, envelope: Envelope, url: str, token: str | None) -> Receipt:
    from fanline.publishing.websocket import publish_over_websocket  # it imports asyncio

    message, envelope.deduplication_id = _outgoing(channel, envelope)  # which checks it
    done = publish_over_websocket(channel, envelope, url, token)
    return Receipt(message.channel, envelope.deduplication_id, done)


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
        if is_default_task(channel):
            check_publication(envelope)
    except MessageError as error:
        raise NotPublished(str(error)) from None
    once = envelope.deduplication_id or secrets.token_hex(16)
    envelope.channel = envelope.deduplication_id = None
    payload = encode_json(envelope)
    return OutgoingMessage(channel, subject, payload, producer_store_id(channel, once), time.monotonic()), once


def hand_over(message: OutgoingMessage, deduplication_id: str, nats: str | NatsOptions | None) -> Receipt:
    """Have the thread carry a message. Raises NotPublished for a URL that is none."""
    message.done.set_running_or_notify_cancel()  # so that a wait that is cancelled does not cancel it for all
    try:
        options = given_options(nats) if nats else environment_options()
        with lock():
            thread = PublishingThread.current(options)
            thread.add(message)
        thread.start()
    except ValueError as error:
        raise NotPublished(str(error)) from None
    except OSError as error:  # too many open files
        message.refuse(str(error))
    return Receipt(message.channel, deduplication_id, message.done)
