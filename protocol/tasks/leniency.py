"""Leniency: what producers of older systems say in their own way, in the words of the engine. Pure; no I/O."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from fanline.protocol.envelope import Envelope
from fanline.protocol.errors import MessageError
from fanline.protocol.tasks.events import MAX_TEXT, TaskData, TaskEvent, data_of, with_data

_encode = msgspec.json.Encoder().encode


def understood(envelope: Envelope, event: TaskEvent) -> tuple[Envelope, TaskData]:
    """A task event and its checked data, both repaired where the meaning of an old producer is clear.
    MessageError(BAD_MESSAGE) where it is not.
    """
    try:
        data = data_of(envelope, event)
    except MessageError:
        return _as_meant(envelope, event)
    if data.progress is None or data.percent is not None or event is not TaskEvent.PROGRESS:
        return envelope, data
    try:
        repaired = msgspec.structs.replace(envelope, data=with_data(envelope, {"percent": data.progress}))
        return repaired, data_of(repaired, event)
    except MessageError:
        return envelope, data  # a key of the producer's own, which says something else


def _as_meant(envelope: Envelope, event: TaskEvent) -> tuple[Envelope, TaskData]:
    """The same of an event whose data cannot be read as it is. What JSON says of CBOR data counts for all viewers, as
    those with JSON could read it otherwise than we do.
    """
    if not isinstance(envelope.data, msgspec.Raw):
        envelope = msgspec.structs.replace(envelope, data=msgspec.Raw(_encode(envelope.data)))
        with suppress(MessageError):
            return envelope, data_of(envelope, event)
    repaired = _repaired(envelope, event) or envelope
    return repaired, data_of(repaired, event)


def _repaired(envelope: Envelope, event: TaskEvent) -> Envelope | None:
    """None if nothing is plain."""
    repair, value = _REPAIRS.get(event), envelope.value
    if repair is None:
        return None
    changes = repair(value if isinstance(value, dict) else {"": value}, envelope.id)
    if not changes:
        return None
    data = with_data(envelope, changes) if isinstance(value, dict) else changes
    return msgspec.structs.replace(envelope, data=data)


def _asked(said: Mapping[str, Any], message_id: str | None) -> dict[str, Any]:
    """A question without a name gets the id of its message as its name, the same in all workers."""
    if said.get("ask") is not None or "" in said:
        return {}
    text = said.get("text", said.get("message"))
    name = message_id or hashlib.blake2s(_encode(said), digest_size=8).hexdigest()
    return {"ask": name, "text": text} if isinstance(text, str) else {"ask": name}


def _output(said: Mapping[str, Any], message_id: str | None) -> dict[str, Any]:
    """A text is one line."""
    text = said.get("lines", said.get(""))
    return {"lines": [text]} if isinstance(text, str) else {}


def _failed(said: Mapping[str, Any], message_id: str | None) -> dict[str, Any]:
    """An error that is no text is its message, or else its JSON text."""
    error = said.get("error")
    if error is None or isinstance(error, str):
        return {}
    text = error.get("message") if isinstance(error, dict) else None
    return {"error": (text if isinstance(text, str) else _encode(error).decode())[:MAX_TEXT]}


def _timed_out(said: Mapping[str, Any], message_id: str | None) -> dict[str, Any]:
    """Its `timeout` says how long the task might have taken, in whatever form; to the end it does not matter."""
    return _failed(said, message_id) | ({"timeout": None} if "timeout" in said else {})


_REPAIRS: Mapping[TaskEvent, Callable[[Mapping[str, Any], str | None], dict[str, Any]]] = {
    TaskEvent.ASKED: _asked,
    TaskEvent.OUTPUT: _output,
    TaskEvent.FAILED: _failed,
    TaskEvent.TIMED_OUT: _timed_out,
}
