"""The stored form of an event that was given up. Pure."""

from typing import NamedTuple

import msgspec

from fanline.protocol.hooks.dead_letters import REASON, WEBHOOK, KeptEvent
from fanline.protocol.hooks.events import ServerEvent
from fanline.protocol.nats.commands import header_bytes
from fanline.protocol.nats.names import MESSAGE_ID, name_key


class DeadLetter(NamedTuple):
    """A message for the stream of dead events."""

    data: bytes
    headers: dict[str, str]


def dead_letter(
    consumer: str, label: str, reason: str, event: ServerEvent, payload: bytes, most: int
) -> DeadLetter | None:
    """`most`: bytes that NATS takes, headers included: it ends the connection of a client that sends more. An event
    that has more goes without its data; None if even that is too much, as only a program of the application's can make
    it.
    """
    headers = {
        MESSAGE_ID: f"{consumer}/{name_key(event.id)}",  # an id may be of any length, and hold anything
        WEBHOOK: label,
        REASON: " ".join(reason.split()),  # one line
    }
    room = most - header_bytes(headers)
    if len(payload) <= room:
        return DeadLetter(payload, headers)
    known = {name: getattr(event, name) for name in ("version", "id", "type", "timestamp", "source")}
    small = msgspec.json.encode(KeptEvent(**known, data_omitted=len(payload)))
    return DeadLetter(small, headers) if len(small) <= room else None
