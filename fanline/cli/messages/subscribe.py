"""`fanline sub`: print the messages of channels."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, NamedTuple

import msgspec
import typer

from fanline.cli.options import CodecName, CodecOption, Url, channels_or_patterns
from fanline.cli.runner import run
from fanline.cli.terminal import note, put, put_json
from fanline.cli.viewer import open_client
from fanline.client.arguments import Codec
from fanline.client.client import Client
from fanline.client.message import Gap, Message, Position
from fanline.errors import ServerError
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.errors import ErrorCode


class HistoryStart(NamedTuple):
    """The first message to print; by default the next one that is published."""

    last: int | None
    start: bool
    position: Position | None


_LIVE = HistoryStart(None, start=False, position=None)


async def print_messages(
    channels: Sequence[str], begin: HistoryStart, url: str | None, codec: Codec, count: int | None, as_json: bool
) -> int:
    """Print one line per message, flushed, until `count` have come, and report gaps (see --help)."""
    client = open_client(url, codec=codec, notice=note)
    positions = {} if begin.position is None else dict.fromkeys(channels, begin.position)
    async with (
        client,
        client.subscribe(*channels, last=begin.last, start=begin.start, positions=positions, gaps=True) as messages,
    ):
        note(f"listening to {', '.join(channels)} on {client.url}")
        if begin != _LIVE:
            await _warn_of_no_history(client, channels)
        printed = 0
        while count is None or printed < count:
            item = await anext(messages)
            printed += isinstance(item, Message)
            _print(item, as_json)
    return 0


async def _warn_of_no_history(client: Client, channels: Sequence[str]) -> None:
    """Say which channels have no stored messages to begin with; the server subscribes to them all the same."""
    for channel in channels:
        try:
            await client.history(channel, limit=1)
        except ServerError as error:
            if error.code == ErrorCode.NOT_SUPPORTED:
                note(f"warning: {channel} is ephemeral, so it has no stored messages: only new ones are printed")


def _print(item: Message | Gap, as_json: bool) -> None:
    if as_json:
        put_json(envelope_line(item))
    elif isinstance(item, Message):
        put(human_line(item))
    else:
        note(str(item))


def human_line(message: Message) -> str:
    """Channel, event and data."""
    data = msgspec.json.encode(message.data).decode()
    return f"{message.channel}  {message.event or '-'}  {data}"


def envelope_line(item: Message | Gap) -> str:
    """The message or gap as a JSON envelope, as on the wire, with the epoch that is needed to resume after it."""
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
        extra=item.x,
    )
    return encode_json(envelope).decode()


def add_sub(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(sub)


def sub(
    channels: Annotated[
        list[str],
        typer.Argument(metavar="CHANNEL", callback=channels_or_patterns, help="As in news:all or news:*."),
    ],
    last: Annotated[int | None, typer.Option(min=1, help="Begin with the newest N stored messages.")] = None,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest stored message.")] = False,
    offset: Annotated[int | None, typer.Option(min=0, help="Begin after this offset, the `o` of a message.")] = None,
    epoch: Annotated[
        str | None,
        typer.Option(help="The `ep` of that message, which shows whether the channel has been recreated since."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after this many messages.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON envelope per line, for scripts.")] = False,
    codec: CodecOption = CodecName.JSON,
    url: Url = None,
) -> None:
    """Print the messages of channels as they arrive, until Ctrl-C.

    \b
      fanline sub news:all
      fanline sub task:42 news:all
      fanline sub task:42 --last 20
      fanline sub task:42 --json --count 10 | jq .d

    Only durable channels have a history to begin with. A lost connection is reported on stderr and reopened, and
    messages that a durable channel received meanwhile are printed then. Messages that are lost for good are reported on
    stderr, or as a `gap` envelope with --json. Exits with code 0, or 130 if Ctrl-C came before --count was reached.
    """
    if (last is not None) + from_start + (offset is not None) > 1:
        raise typer.BadParameter("give one of --last, --from-start and --offset")
    if epoch is not None and offset is None:
        raise typer.BadParameter("--epoch belongs to an --offset")
    if offset is not None and len(channels) > 1:
        raise typer.BadParameter("--offset is for one channel")
    begin = HistoryStart(last, from_start, None if offset is None else Position(offset, epoch))
    program = partial(print_messages, channels, begin, url, codec.value, count, as_json)
    run(program, **({} if count is not None else {"interrupted": 0}))
