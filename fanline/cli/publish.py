"""`fanline pub`: one value, or one per line of stdin, to a channel."""

import os
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec
import trio

from fanline.client.client import Client, Codec
from fanline.errors import FanlineError
from fanline.local import find_server, nats_address
from fanline.nats.publish import open_nats_publisher
from fanline.protocol.envelope import Envelope, check_value
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.client_protocol import parse_url

FLUSH_MESSAGES = 1000
IDLE_SECONDS = 30.0
_CHUNK_BYTES = 1 << 16
_STDIN = 0


class NotJson(FanlineError):  # noqa: N818  # reads as what was found
    """A value that is no JSON; says where and what to do."""


@dataclass(frozen=True)
class Publication:
    """What is published besides the values themselves."""

    channel: str
    event: str | None = None
    id: str | None = None


def parse_json(text: bytes | str) -> object:
    """The value of a JSON text. Raises NotJson."""
    try:
        value = msgspec.json.decode(text)
        check_value(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError, MessageError) as error:
        shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
        hint = "" if shown.lstrip().startswith(("{", "[", '"')) else """ (a string needs quotes: '"hello"')"""
        raise NotJson(f"not JSON: {shown[:60]!r}: {error}{hint}") from None
    return value


async def publish_to_nats(what: Publication, text: str, nats: str | None) -> int:
    """Publish the JSON `text`, "-" for the lines of stdin, to the given NATS or to a local server's.

    Returns when all is stored if the channel is durable, else when NATS has taken it.
    """
    address = nats_address(find_server()) if nats is None else parse_url(nats)
    async with open_nats_publisher(address) as publisher:
        count, stored = 0, await publisher.is_stored(what.channel)
        async for value in _values(text, publisher.flush):
            envelope = Envelope(channel=what.channel, id=what.id, event=what.event, data=value)
            await publisher.publish(envelope, stored=stored)
            count += 1
            if count % FLUSH_MESSAGES == 0:
                await publisher.flush()
    return 0


async def publish_to_url(what: Publication, text: str, url: str, codec: Codec) -> int:
    """The same through a WebSocket, where each value is acknowledged."""
    async with Client(url, codec=codec) as client:
        async for value in _values(text, trio.lowlevel.checkpoint):
            await client.publish(what.channel, value, event=what.event, id=what.id)
    return 0


async def _values(text: str, idle: Callable[[], Awaitable[None]]) -> AsyncIterator[object]:
    if text != "-":
        yield parse_json(text)
        return
    number = 0
    async for line in _stdin_lines(idle):
        number += 1
        if not line.strip():
            continue
        try:
            yield parse_json(line)
        except NotJson as error:
            raise NotJson(f"line {number} of stdin is {error}; the lines before it are published") from None


async def _stdin_lines(idle: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    """The lines as they come; `idle` is awaited in long pauses, for a connection that has to be kept alive."""
    rest = b""
    while True:
        # A thread, since stdin may be a file, which no event loop can wait for.
        chunk = await trio.to_thread.run_sync(_read_chunk, abandon_on_cancel=True)
        if chunk is None:
            await idle()
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if not chunk:
            yield rest
            return


def _read_chunk() -> bytes | None:
    """Some bytes of stdin, b"" at its end, None after a long silence."""
    readable, _, _ = select.select([_STDIN], [], [], IDLE_SECONDS)
    return os.read(_STDIN, _CHUNK_BYTES) if readable else None
