"""Options and checks of arguments that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer

from fanline.local import find_server, server_name
from fanline.protocol.channels import check_channel, check_channel_or_pattern, is_channel
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
    if is_channel(name) and not name.startswith("task:"):
        raise typer.BadParameter(f"{name} is a channel, not a task: see `fanline sub {name}`; a task is task:ID")
    return channel_name(f"task:{name.removeprefix('task:')}").removeprefix("task:")


def short_text(text: str | None) -> str | None:
    if text is not None and len(text) > MAX_TEXT:
        raise typer.BadParameter(f"{len(text)} characters, at most {MAX_TEXT}")
    return text


def websocket_url(text: str | None) -> str | None:
    """The URL of the server that is named; None if none is. Raises NoServer for a port that no local server has."""
    if text is None:
        return None
    try:
        name = server_name(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return find_server(url=name).url if name.isdecimal() else name


Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        "--port",
        metavar="WS_URL|PORT",
        callback=websocket_url,
        help="Server, as in ws://127.0.0.1:8080/ws, or the port of a local one. [default: $FANLINE_URL, or the local "
        "server that started last]",
    ),
]
CodecOption = Annotated[CodecName, typer.Option(help="Encoding of the messages on the WebSocket.")]
TaskId = Annotated[
    str, typer.Argument(metavar="task:ID", callback=task_id, help="The task, as in task:build-42, or just its ID.")
]
