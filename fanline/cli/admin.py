"""`fanline admin`: the management API on the command line. Each call is a row of a table."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import typer

from fanline.cli.apikey import ApiUrl
from fanline.cli.terminal import put_json, put_lines
from fanline.management import ManagementClient

_IN_PATH = re.compile(r"\{(\w+)\}")
_MOST = 60  # characters of a cell


class AdminCall(NamedTuple):
    """One call. Its arguments are the names in the path, then those of the body."""

    name: str
    method: str
    path: str
    help: str
    body: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """Of a list, the fields that are shown."""

    @property
    def arguments(self) -> list[str]:
        """Their names, in order."""
        return [*_IN_PATH.findall(self.path), *self.body]


_CONNECTION = ("connection_id", "user_id", "worker", "route", "client_address", "connected_at", "subscription_count")
CALLS = {
    call.name: call
    for call in (
        AdminCall("info", "GET", "/info", "What the server is."),
        AdminCall("stats", "GET", "/stats", "The whole cluster in numbers."),
        AdminCall("health", "GET", "/health", "Whether the server does its work, tried now."),
        AdminCall("connections", "GET", "/connections", "All connections.", columns=_CONNECTION),
        AdminCall("connection", "GET", "/connections/{connection_id}", "One connection."),
        AdminCall("user", "GET", "/users/{user_id}/connections", "Those of a user.", columns=_CONNECTION),
        AdminCall("online", "GET", "/online-users", "Who is connected.", columns=("user_id", "connections")),
        AdminCall("channels", "GET", "/channels", "Channels with subscribers.", columns=("channel", "subscribers")),
        AdminCall("channel", "GET", "/channels/{channel}", "One channel."),
        AdminCall("presence", "GET", "/channels/{channel}/presence", "Who is on a channel."),
        AdminCall(
            "history",
            "GET",
            "/channels/{channel}/history",
            "What is stored of a channel.",
            columns=("offset", "time", "sender", "event", "data"),
        ),
        AdminCall("tasks", "GET", "/tasks", "Running and ended tasks.", columns=("task_id", "state")),
        AdminCall("task", "GET", "/tasks/{task_id}", "One task."),
        AdminCall("cancel", "POST", "/tasks/{task_id}/cancel", "Ask a task to stop."),
        AdminCall("approve", "POST", "/tasks/{task_id}/approve", "Approve what a task asks."),
        AdminCall("reject", "POST", "/tasks/{task_id}/reject", "Reject it."),
        AdminCall("input", "POST", "/tasks/{task_id}/input", "Give a task a value, JSON.", ("value",)),
        AdminCall("broadcast", "POST", "/broadcast", "Send a JSON object to every connection.", ("message",)),
        AdminCall("send-to-user", "POST", "/send-to-user", "Send one to a user.", ("user_id", "message")),
        AdminCall("send-to-channel", "POST", "/send-to-channel", "Send one to a channel.", ("channel", "message")),
        AdminCall(
            "send-to-connection",
            "POST",
            "/send-to-connection",
            "Send one to a connection.",
            ("connection_id", "message"),
        ),
        AdminCall("ping", "POST", "/ping/{user_id}", "The round trip to each connection of a user."),
        AdminCall("disconnect-user", "POST", "/users/disconnect", "Close all connections of a user.", ("user_id",)),
        AdminCall("disconnect", "POST", "/connections/{connection_id}/disconnect", "Close one connection."),
        AdminCall(
            "subscribe",
            "POST",
            "/connections/{connection_id}/subscribe",
            "Subscribe a connection to a channel.",
            ("channel",),
        ),
        AdminCall(
            "unsubscribe",
            "POST",
            "/connections/{connection_id}/unsubscribe",
            "End a subscription of a connection.",
            ("channel",),
        ),
    )
}
_AS_JSON = frozenset(("message", "value"))
"""Arguments that are JSON."""


def add_admin(app: typer.Typer) -> None:
    """Register the command."""
    app.command(short_help="Look at a server's cluster, and manage it.", help=_help())(admin)


def _help() -> str:
    rows = (f"{' '.join([call.name, *map(str.upper, call.arguments)]):<44} {call.help}" for call in CALLS.values())
    return "\n".join(
        [
            "Look at the whole cluster of a server, and manage it, by its management API.",
            "",
            "Without --url it is that of the local server, which must be yours; with it, a key is taken from",
            "FANLINE_API_KEY. Filters of lists are given with --set: `--set user=anna`, `--set state=running`.",
            "",
            "\b",
            *rows,
        ]
    )


def admin(
    call: Annotated[str, typer.Argument(metavar="CALL", help="One of those above.")],
    values: Annotated[list[str] | None, typer.Argument(metavar="[ARGUMENT]...", help="What the call needs.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A filter of a list, or a field of the body."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Of a list, the most items that are shown.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is, for programs.")] = False,
    url: ApiUrl = None,
) -> None:
    found = CALLS.get(call)
    if found is None:
        raise typer.BadParameter(f"there is no call {call!r}: `fanline admin --help` lists them")
    given = dict(zip(found.arguments, values or (), strict=False))
    if len(values or ()) != len(found.arguments):
        raise typer.BadParameter(f"{call} needs {' '.join(map(str.upper, found.arguments)) or 'no argument'}")
    answer = _ask(ManagementClient(url), found, given, _options(options or []), limit)
    if as_json:
        put_json(json.dumps(answer, ensure_ascii=False))
    else:
        put_lines(list(_lines(found, answer)))
    if found.name == "health" and not answer["healthy"]:
        raise typer.Exit(1)


def _options(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(sign for _, sign, _ in pairs):
        raise typer.BadParameter("write --set NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _ask(
    client: ManagementClient, call: AdminCall, given: Mapping[str, str], options: Mapping[str, str], limit: int
) -> Any:
    path = _IN_PATH.sub(lambda found: quote(given[found[1]], safe=":"), call.path)
    if call.method == "POST":
        body = {name: _value(name, given[name]) for name in call.body}
        body |= {name: _value("value", value) for name, value in options.items()}
        return client.call("POST", path, body=body or None)
    if not call.columns:
        return client.call("GET", path, options)
    return _pages(client, path, options, limit, "before" if call.name == "history" else "after")


def _pages(client: ManagementClient, path: str, options: Mapping[str, str], limit: int, behind: str) -> dict[str, Any]:
    """As many pages as it takes for `limit` items, as one."""
    items, answer, after = list[Any](), dict[str, Any](), None
    while len(items) < limit:
        answer = client.call("GET", path, {"limit": min(limit - len(items), 100), **options, behind: after})
        items += answer["items"]
        after = answer["next"]
        if after is None:
            break
    return {**answer, "items": items}


def _value(name: str, text: str) -> Any:
    """An argument's value: JSON where it may be."""
    if name not in _AS_JSON:
        return text
    try:
        return json.loads(text)
    except ValueError:
        if name == "message":
            raise typer.BadParameter(f"{text!r} is no JSON object") from None
        return text


def _lines(call: AdminCall, answer: Any) -> Iterator[str]:
    """For people."""
    if call.columns:
        yield from _table(call.columns, answer["items"])
        if answer.get("next") is not None:
            yield "... there are more: --limit"
        if missing := (answer.get("workers") or {}).get("missing"):
            yield f"NOT ANSWERED: {', '.join(missing)}"
        return
    for name, value in answer.items():
        yield from _named(name, value)


def _named(name: str, value: Any) -> Iterator[str]:
    """A field on a line of its own, an object field by field, and of a list one line per object, without its zeros."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _named(f"{name}.{key}", part)
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for item in value:
            yield f"{name:<26} {', '.join(_counted(item))}"
    else:
        yield f"{name:<26} {_cell(value)}"


def _counted(item: Mapping[str, Any]) -> Iterator[str]:
    for name, value in item.items():
        if isinstance(value, dict):
            yield from _counted(value)
        elif value:
            yield f"{name} {_cell(value)}"


def _table(columns: Sequence[str], items: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = [list(columns), *([_cell(item.get(name))[:_MOST] for name in columns] for item in items)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
