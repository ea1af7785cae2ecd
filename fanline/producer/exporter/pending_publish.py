"""The messages that a buffered event becomes: each with a serial number, none larger than NATS accepts. Pure."""

import itertools
import secrets
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from fanline.producer.run.buffer import BufferedEvent, without_large_values
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.names import MESSAGE_ID, producer_store_id
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.serials import SerialNumber

OVERHEAD = 512
"""Bytes allowed for the headers, which count as payload, and for the other keys of an envelope."""
_LONGEST_ESCAPE = 6  # bytes that one character may take in JSON
_OTHER_KEYS = 128  # bytes allowed for the keys beside `lines`


class PendingPublish(NamedTuple):
    """One message to publish, repeatedly if need be, until it is acknowledged."""

    event: TaskEvent
    number: int
    headers: Mapping[str, str]
    payload: bytes


def serial_numbers() -> Iterator[SerialNumber]:
    """Those of one run of a task, unique among all runs of all tasks."""
    producer = secrets.token_hex(6)
    return ((producer, number) for number in itertools.count(1))


def pending_publishes(
    event: BufferedEvent, *, channel: str, attempt: int, serials: Iterator[SerialNumber], time: int, limit: int
) -> Iterator[PendingPublish]:
    """An event as one message, or as several if its lines do not fit into `limit` bytes. `time` is in Unix ms."""
    for part in fitting(event.data, limit - OVERHEAD):
        producer, number = serial = next(serials)
        message_id = f"{producer}-{number}"
        data = {"attempt": attempt, "serial": serial, **part}
        payload = encode_json(Envelope(id=message_id, event=event.event, time=time, data=data))
        yield PendingPublish(event.event, number, {MESSAGE_ID: producer_store_id(channel, message_id)}, payload)


def fitting(data: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The data in parts of at most `limit` bytes of JSON. What cannot be divided is cut or left out."""
    if len(msgspec.json.encode(data)) <= limit:
        yield data
        return
    lines = data.get("lines")
    if lines is None:
        yield without_large_values(data)
    elif len(lines) > 1:
        half, rest = len(lines) // 2, {key: value for key, value in data.items() if key != "dropped"}
        yield from fitting({**data, "lines": lines[:half]}, limit)
        yield from fitting({**rest, "lines": lines[half:]}, limit)
    else:
        length = max(0, limit - _OTHER_KEYS) // _LONGEST_ESCAPE
        yield {**data, "lines": ["".join(islice(lines[0], length))]}
