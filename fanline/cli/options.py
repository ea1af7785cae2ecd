"""Options and checks of arguments that several commands share."""

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

import typer

from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.envelope import MAX_TEXT
from fanline.protocol.errors import MessageError


class CodecName(StrEnum):
    JSON = "json"
    CBOR = "cbor"


def channel_name(name: str) -> str:
    try:
        return check_channel(name)
    except MessageError as error:
        raise typer.BadParameter(str(error)) from None


def channel_or_pattern(name: str) -> str:
    try:
        return check_channel_or_pattern(name)
    except MessageError as error:
        raise typer.BadParameter(str(error)) from None


def channels_or_patterns(names: list[str]) -> list[str]:
    return [channel_or_pattern(name) for name in names]


def task_id(name: str) -> str:
    """The ID in `task:ID`, or `ID` itself."""
    return channel_name(f"task:{name.removeprefix('task:')}").removeprefix("task:")


def short_text(text: str | None) -> str | None:
    if text is not None and len(text) > MAX_TEXT:
        raise typer.BadParameter(f"{len(text)} characters, at most {MAX_TEXT}")
    return text


def websocket_url(url: str | None) -> str | None:
    if url is not None and (urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname):
        raise typer.BadParameter(f"not a WebSocket URL: {url!r} (expected ws://HOST:PORT/ws)")
    return url


Url = Annotated[
    str | None,
    typer.Option(
        metavar="WS_URL", callback=websocket_url, help="Server, as in ws://127.0.0.1:8080/ws. [default: the local one]"
    ),
]
CodecOption = Annotated[CodecName, typer.Option(help="Encoding of the messages on the WebSocket.")]
TaskId = Annotated[
    str, typer.Argument(metavar="task:ID", callback=task_id, help="The task, as in task:build-42, or just its ID.")
]
