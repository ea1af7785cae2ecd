"""`fanline sub`: print what comes."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fanline.cli.runner import note
from fanline.client.client import Client, Codec
from fanline.client.message import Gap, Message, Position
from fanline.local import find_server
from fanline.protocol.envelope import Envelope, MessageType, encode_json


class Begin(NamedTuple):
    """From where on messages are wanted; by default only what comes."""

    last: int | None
    start: bool
    position: Position | None


async def print_messages(
    channels: Sequence[str], begin: Begin, url: str | None, codec: Codec, count: int | None, as_json: bool
) -> int:
    """Print one line a message, flushed, until `count` have come, and tell what is missing (see --help)."""
    url = url or find_server().url
    positions = {} if begin.position is None else dict.fromkeys(channels, begin.position)
    async with (
        Client(url, codec=codec) as client,
        client.subscribe(*channels, last=begin.last, start=begin.start, positions=positions, gaps=True) as messages,
    ):
        note(f"listening to {', '.join(channels)} on {url}")
        printed = 0
        while count is None or printed < count:
            item = await anext(messages)
            printed += isinstance(item, Message)
            if as_json:
                sys.stdout.write(envelope_line(item) + "\n")
            elif isinstance(item, Message):
                sys.stdout.write(human_line(item) + "\n")
            else:
                note(str(item))
            sys.stdout.flush()
    return 0


def human_line(message: Message) -> str:
    """Channel, event and data; nothing that a terminal would take as a command."""
    data = msgspec.json.encode(message.data).decode()
    line = f"{message.channel}  {message.event or '-'}  {data}"
    return line if line.isprintable() else ascii(line)[1:-1]


def envelope_line(item: Message | Gap) -> str:
    """The message or gap as a JSON envelope, the form it has on the wire, with the epoch to go on from it."""
    if isinstance(item, Gap):
        data = {"from": item.first, "to": item.last, "reason": item.reason, "count": item.count}
        known = {key: value for key, value in data.items() if value is not None}
        return encode_json(Envelope(MessageType.GAP, channel=item.channel, epoch=item.epoch, data=known)).decode()
    envelope = Envelope(
        MessageType.PUB,
        channel=item.channel,
        offset=item.offset,
        previous=item.previous,
        epoch=item.epoch,
        id=item.id,
        event=item.event,
        data=item.data,
        sender=item.sender,
        time=item.time,
    )
    return encode_json(envelope).decode()
