"""The envelopes that a task's messages become: with an id each, and no larger than NATS takes. Pure."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from fanline.producer.buffer import Message
from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.names import MESSAGE_ID, deduplication_id

OVERHEAD = 512
"""Bytes of headers, which count as payload, and of an envelope's other keys."""
_SMALL = 1024


class Parcel(NamedTuple):
    """One message as it is sent, as often as it takes until it is stored."""

    headers: Mapping[str, str]
    payload: bytes


def parcels(
    message: Message, *, channel: str, attempt: int, ids: Iterator[str], time: int, limit: int
) -> Iterator[Parcel]:
    """A message as one envelope, or as several if its lines do not fit into `limit` bytes. `time` in Unix ms."""
    for data in fitting(message.data, limit - OVERHEAD):
        message_id = next(ids)
        envelope = Envelope(id=message_id, event=message.event, time=time, data={"attempt": attempt, **data})
        yield Parcel({MESSAGE_ID: deduplication_id(channel, message_id)}, encode_json(envelope))


def fitting(data: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The data in pieces of at most `limit` bytes each as JSON; what cannot be divided is cut."""
    if len(msgspec.json.encode(data)) <= limit:
        yield data
        return
    lines = data.get("lines")
    if lines is None:
        yield {key: value for key, value in data.items() if len(msgspec.json.encode(value)) <= _SMALL}
    elif len(lines) > 1:
        half, rest = len(lines) // 2, {key: value for key, value in data.items() if key != "dropped"}
        yield from fitting({**data, "lines": lines[:half]}, limit)
        yield from fitting({**rest, "lines": lines[half:]}, limit)
    else:  # a character takes at most six bytes, besides the other keys
        yield {**data, "lines": ["".join(islice(lines[0], max(0, limit - 128) // 6))]}
