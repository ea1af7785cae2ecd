"""`fanline sub`: print what comes."""

import sys
from collections.abc import Sequence

import msgspec

from fanline._cli_run import note
from fanline._client import Client, Codec
from fanline._local import find_server
from fanline._message import Message
from protocol.envelope import Envelope, MessageType, encode_json


async def print_messages(
    channels: Sequence[str], url: str | None, codec: Codec, count: int | None, as_json: bool
) -> int:
    """Print one line a message, flushed, until `count` have come."""
    url = url or find_server().url
    show = envelope_line if as_json else human_line
    async with Client(url, codec=codec) as client, client.subscribe(*channels) as messages:
        note(f"listening to {', '.join(channels)} on {url}")
        printed = 0
        while count is None or printed < count:
            sys.stdout.write(show(await anext(messages)) + "\n")
            sys.stdout.flush()
            printed += 1
    return 0


def human_line(message: Message) -> str:
    """Channel, event and data; nothing that a terminal would take as a command."""
    data = msgspec.json.encode(message.data).decode()
    line = f"{message.channel}  {message.event or '-'}  {data}"
    return line if line.isprintable() else ascii(line)[1:-1]


def envelope_line(message: Message) -> str:
    """The message as a JSON envelope, the form it has on the wire."""
    envelope = Envelope(
        MessageType.PUB,
        channel=message.channel,
        offset=message.offset,
        id=message.id,
        event=message.event,
        data=message.data,
        sender=message.sender,
        time=message.time,
    )
    return encode_json(envelope).decode()
