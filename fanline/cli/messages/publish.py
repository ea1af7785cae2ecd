"""`fanline pub`: publish one value, or one per line of stdin, to a channel."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
import trio
import typer

from fanline.cli.nats_flags import (
    NatsCreds,
    NatsNkey,
    NatsTlsCa,
    NatsTlsCert,
    NatsTlsKey,
    NatsUrl,
    nats_from_flags,
)
from fanline.cli.options import CodecName, CodecOption, Url, channel_name, short_text
from fanline.cli.runner import run
from fanline.cli.viewer import open_client
from fanline.client.arguments import Codec
from fanline.errors import FanlineError
from fanline.nats.publish import open_nats_publisher
from fanline.nats.settings import find_options
from fanline.protocol.envelope import Envelope, check_deduplication_id
from fanline.protocol.errors import MessageError
from fanline.protocol.extra import check_extra
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.tasks.publications import check_publication, is_default_task
from fanline.protocol.values import check_value
from fanline.publishing.way import server_to_publish_through

FLUSH_MESSAGES = 1000
_CHUNK_BYTES = 1 << 16
_STDIN = 0


class NotJson(FanlineError):  # noqa: N818  # reads as what was found
    """A value that is not JSON; str() says where, and what to do."""


class EventRefused(FanlineError):  # noqa: N818  # reads as what happened
    """An event that no task takes; str() says why."""


@dataclass(frozen=True)
class Publication:
    """What all values that are published have in common."""

    channel: str
    event: str | None = None
    x: dict[str, Any] | None = None
    deduplication_id: str | None = None


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


async def publish_to_nats(what: Publication, text: str, nats: NatsOptions | None) -> int:
    """Publish the JSON `text`, or the lines of stdin if it is "-", to the given NATS or the default one.

    Returns when everything is stored if the channel is durable, otherwise when NATS has accepted it.
    """
    async with open_nats_publisher(find_options(nats)) as publisher:
        count, stored = 0, await publisher.is_stored(what.channel)
        async for value in _values(text):
            envelope = Envelope(
                channel=what.channel,
                event=what.event,
                data=value,
                extra=what.x,
                deduplication_id=what.deduplication_id,
            )
            _check_event(envelope, count)
            publisher.publish(envelope, stored=stored)
            count += 1
            if count % FLUSH_MESSAGES == 0:
                await publisher.flush()
    return 0


def _check_event(envelope: Envelope, before: int) -> None:
    """Refuse an event that a task would leave out; `before`: how many values are published already. EventRefused."""
    if envelope.channel is None or not is_default_task(envelope.channel):
        return
    try:
        check_publication(envelope)
    except MessageError as error:
        published = f"; the {before} before it are published" if before else ""
        raise EventRefused(f"{error} ({error.code}){published}") from None


async def publish_to_url(what: Publication, text: str, url: str, codec: Codec) -> int:
    """The same through a WebSocket, where the server acknowledges each value."""
    async with open_client(url, codec=codec) as client:
        async for value in _values(text):
            once = what.deduplication_id
            await client.publish(what.channel, value, event=what.event, x=what.x, deduplication_id=once)
    return 0


async def _values(text: str) -> AsyncIterator[object]:
    if text != "-":
        yield parse_json(text)
        return
    number = 0
    async for line in _stdin_lines():
        number += 1
        if not line.strip():
            continue
        try:
            yield parse_json(line)
        except NotJson as error:
            raise NotJson(f"line {number} of stdin is {error}; the lines before it are published") from None


async def _stdin_lines() -> AsyncIterator[bytes]:
    """The lines as they arrive."""
    rest = b""
    while True:
        # In a thread, since stdin may be a file, for which an event loop cannot wait.
        chunk = await trio.to_thread.run_sync(os.read, _STDIN, _CHUNK_BYTES, abandon_on_cancel=True)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if not chunk:
            yield rest
            return


def _json_value(text: str) -> str:
    """Checks the argument; "-" stands for stdin."""
    try:
        if text != "-":
            parse_json(text)
    except NotJson as error:
        raise typer.BadParameter(str(error)) from None
    return text


def _extra(text: str | None) -> str | None:
    """Checks the option."""
    try:
        if text is not None:
            value = parse_json(text)
            if not isinstance(value, dict):
                raise typer.BadParameter("""a JSON object, as in '{"task_id": "42"}'""")
            check_extra(value)
    except (NotJson, MessageError) as error:
        raise typer.BadParameter(str(error).removeprefix("x: ")) from None
    return text


def _deduplication_id(text: str | None) -> str | None:
    """Checks the option."""
    try:
        if text is not None:
            check_deduplication_id(text)
    except MessageError as error:
        raise typer.BadParameter(str(error).removeprefix("dd: ")) from None
    return text


def add_pub(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(pub)


def pub(
    channel: Annotated[str, typer.Argument(callback=channel_name, help="Channel to publish to, as in task:42.")],
    value: Annotated[
        str,
        typer.Argument(metavar="JSON", callback=_json_value, help="Any JSON value; - reads one per line of stdin."),
    ],
    event: Annotated[
        str | None, typer.Option(callback=short_text, help="Event name of the message, as in task_progress.")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="JSON", callback=_extra, help="""Extra attributes, as in '{"task_id": "42"}'."""),
    ] = None,
    deduplication_id: Annotated[
        str | None,
        typer.Option(
            callback=_deduplication_id,
            help="16 to 128 characters, such as a UUID: within two minutes, a durable channel stores it only once.",
        ),
    ] = None,
    nats: NatsUrl = None,
    nats_creds: NatsCreds = None,
    nats_nkey: NatsNkey = None,
    nats_tls_ca: NatsTlsCa = None,
    nats_tls_cert: NatsTlsCert = None,
    nats_tls_key: NatsTlsKey = None,
    url: Url = None,
    codec: CodecOption = CodecName.JSON,
) -> None:
    """Publish a JSON value to a channel, and return when it is stored, or accepted if the channel is ephemeral.

    It goes to NATS, like what any producer publishes: by default that of the local `fanline serve`. With --url or
    FANLINE_TOKEN, or if FANLINE_URL names a server elsewhere, it goes through that server. On a durable channel it is
    safe to publish again with the same --deduplication-id: the message is stored once.

    \b
      fanline pub news:all '{"title": "hello"}'
      fanline pub news:all '"a string needs its quotes"'
      fanline pub task:42 '{"percent": 40}' --event task_progress
      fanline pub news:all - < one-value-per-line.jsonl
      fanline pub news:all 1 --url ws://127.0.0.1:8080/ws
    """
    if nats is not None and url is not None:
        raise typer.BadParameter("give --nats or --url, not both")
    if value == "-" and deduplication_id is not None:
        raise typer.BadParameter("--deduplication-id is for one message, and stdin may hold many")
    extra = None if x is None else msgspec.json.decode(x, type=dict[str, Any])
    what = Publication(channel, event, extra, deduplication_id)
    given = nats or nats_creds or nats_nkey
    server = url or server_to_publish_through(nats=given, url=None, token=None)
    if server is not None:
        run(partial(publish_to_url, what, value, server, codec.value))
    options = nats_from_flags(
        nats, creds=nats_creds, nkey=nats_nkey, tls_ca=nats_tls_ca, tls_cert=nats_tls_cert, tls_key=nats_tls_key
    )
    run(partial(publish_to_nats, what, value, options))
