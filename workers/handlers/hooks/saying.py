"""Sends the application's events and messages: at once, from any thread, and without waiting."""

import asyncio
import logging
import secrets
import time
from typing import Any

import nats.errors
from nats.aio.client import Client

from fanline.engine.log_pace import LogPace
from fanline.protocol.channels import check_channel
from fanline.protocol.envelope import Envelope, MessageType, check_texts, encode_json, from_producer
from fanline.protocol.errors import MessageError
from fanline.protocol.hooks.events import check_own_event, encode_event, event_subject
from fanline.protocol.hooks.hooks import HookError
from fanline.protocol.nats.commands import header_bytes
from fanline.protocol.nats.names import MESSAGE_ID, producer_store_id
from fanline.protocol.nats.subjects import to_subject

_SOURCE = "handlers"
_MOST_UNSENT = 10_000
"""Messages that wait to be sent; further ones are dropped."""
_log = logging.getLogger("fanline.hooks")


class Saying:
    """To be made in the loop of the process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = LogPace()

    def emit(self, event: str, data: dict[str, Any]) -> None:
        """Publish an event. HookError for an invalid name, or data that cannot be encoded."""
        if not isinstance(data, dict):
            raise HookError(f"the data of {event} is a {type(data).__name__}; expected a dict")
        event_id = secrets.token_urlsafe(12)
        try:
            check_own_event(event)
            payload = encode_event(event, event_id, time.time_ns() // 1_000_000, _SOURCE, data)
        except (TypeError, ValueError, RecursionError) as error:
            raise HookError(f"the event {event!r} cannot be published: {error}") from None
        self._send_soon(event_subject(event), payload, event_id)

    def publish(self, channel: str, event: str | None, data: Any) -> None:
        """Publish a message. HookError for a channel or data that cannot be sent."""
        message_id = secrets.token_urlsafe(12)
        envelope = Envelope(MessageType.PUB, id=message_id, event=event, data=data, time=time.time_ns() // 1_000_000)
        try:
            check_channel(channel)
            check_texts(envelope)
            payload = encode_json(envelope)
            from_producer(payload)  # what every receiver would refuse is refused here, where somebody hears of it
        except (MessageError, TypeError, ValueError, RecursionError) as error:
            raise HookError(f"the message to {channel!r} cannot be published: {error}") from None
        self._send_soon(to_subject(channel), payload, producer_store_id(channel, message_id))

    def _send_soon(self, subject: str, payload: bytes, store_id: str) -> None:
        size, most = len(payload) + header_bytes({MESSAGE_ID: store_id}), self._client.max_payload
        if size > most:  # the server would end the connection, and nats-py checks the payload alone
            raise HookError(f"{size} bytes with headers for {subject}, but NATS takes {most}")
        self._loop.call_soon_threadsafe(self._begin, subject, payload, store_id)

    def _begin(self, subject: str, payload: bytes, store_id: str) -> None:
        if len(self._tasks) >= _MOST_UNSENT:
            self._report("NATS does not keep up: messages are dropped")
            return
        task = self._loop.create_task(self._send(subject, payload, store_id))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _send(self, subject: str, payload: bytes, store_id: str) -> None:
        try:
            await self._client.publish(subject, payload, headers={MESSAGE_ID: store_id})
        except nats.errors.Error as error:
            self._report(f"a message on {subject} is lost: {error or type(error).__name__}")

    def _report(self, text: str) -> None:
        if self._pace.allows(text):
            _log.error("%s", text)
