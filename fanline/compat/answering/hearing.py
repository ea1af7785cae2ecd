"""Events, as functions of the program hear them: in their order, several at a time, and never more than fit."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from hashlib import blake2s
from typing import Any

import msgspec

from fanline.compat.answering.calling import ProgramCalls
from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.dialects.plain.names import name_of
from fanline.protocol.dialects.plain.plain import PlainDialect
from fanline.protocol.envelope import MessageType, decode_json
from fanline.protocol.errors import MessageError
from fanline.protocol.hooks.events import BadEventError, EventName, check_event_name, decode_event, event_subject
from fanline.protocol.nats.names import namespace_subject
from fanline.protocol.nats.parser import NatsMessage
from fanline.protocol.nats.subjects import Direction, from_subject

AT_ONCE = 16
"""Calls of one function; further events wait."""
MOST_WAITING = 10_000
"""Events for one function; further ones are dropped."""

EventHandler = Callable[[dict[str, Any]], Any]
_IDS = {"session": "session_id", "project": "project_id", "task": "task_id", "doc": "document_id"}
_log = logging.getLogger("fanline")
_OLD_SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "websocket_channel_events": tuple(
        event_subject(name)
        for name in (
            EventName.CONNECTION_OPENED,
            EventName.CONNECTION_CLOSED,
            EventName.SUBSCRIBED,
            EventName.UNSUBSCRIBED,
        )
    ),
    "task_events:all": (namespace_subject("task", Direction.OUT),),
    "project_events:all": (namespace_subject("project", Direction.OUT),),
    "system_events:all": (namespace_subject("system", Direction.OUT),),
}
"""Where that is said which the agent console said on Redis under these names."""


def subjects_of(event: str) -> tuple[str, ...]:
    """Where an event is said. EventNameError."""
    return _OLD_SUBJECTS.get(event) or (event_subject(check_event_name(event)),)


def queue_of(event: str, handler: EventHandler, number: int) -> str:
    """Of all processes of a program, one hears each event. `number`: of several functions for one event."""
    name = getattr(handler, "__qualname__", type(handler).__name__)
    text = f"{event} {number} {getattr(handler, '__module__', '')} {name}"
    return f"fanline-compat-{blake2s(text.encode(), digest_size=8).hexdigest()}"


class Hearing:
    """One function, and the events that wait for it."""

    def __init__(self, calls: ProgramCalls, handler: EventHandler) -> None:
        self._calls = calls
        self._handler = handler
        self._waiting: deque[dict[str, Any]] = deque()
        self._under_way = 0
        self._lock = threading.Lock()  # calls end in threads of their own

    def take(self, message: NatsMessage) -> None:
        """In the thread of the connection."""
        event = _event_in(message)
        if event is None:
            return
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                _log.warning("%r does not keep up: an event is dropped", self._handler)
                return
            self._waiting.append(event)
        self._begin()

    def _begin(self) -> None:
        with self._lock:
            if not self._waiting or self._under_way >= AT_ONCE:
                return
            event, self._under_way = self._waiting.popleft(), self._under_way + 1
        self._calls.call(self._handler, event).add_done_callback(self._ended)

    def _ended(self, call: "Future[Any]") -> None:
        error = None if call.cancelled() else call.exception()
        if error is not None:
            _log.error("%r failed", self._handler, exc_info=error)
        with self._lock:
            self._under_way -= 1
        self._begin()


def _event_in(message: NatsMessage) -> dict[str, Any] | None:
    """As the program gets it; None for what is none: whoever is not a producer may publish there."""
    try:
        if message.subject.startswith(f"fanline.{Direction.OUT}."):
            return _published(message)
        event = decode_event(message.payload)
    except (BadEventError, MessageError):
        return None
    return {"type": event.type, "timestamp": event.timestamp, **event.data, **_place(event.data.get("channel"))}


def _place(channel: Any) -> dict[str, Any]:
    """A channel as the programs know it."""
    if not isinstance(channel, str):
        return {}
    namespace, _, local = channel.partition(":")
    ids = {_IDS[namespace]: unescape_id(local)} if namespace in _IDS else {}
    return {"channel": name_of(channel), **ids}


def _published(message: NatsMessage) -> dict[str, Any]:
    """A message of a channel, as plain clients get it. MessageError."""
    envelope = decode_json(message.payload)
    envelope.type, envelope.channel = MessageType.PUB, from_subject(message.subject)
    fields: dict[str, Any] = msgspec.json.decode(PlainDialect().encode(envelope))
    return fields
