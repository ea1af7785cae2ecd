"""`fanline admin`: the management API on the command line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any
from urllib.parse import quote

import typer

from fanline.cli.manage.admin_calls import CALLS, IN_PATH, AdminCall
from fanline.cli.manage.apikey import ApiUrl
from fanline.cli.terminal import put_json, put_lines
from fanline.management import ManagementClient

_MOST = 60  # characters of a cell
_DIGITS = 6  # of a number of seconds: microseconds


_A_MESSAGE = '{"type": "notice", "data": {"text": "hello"}}'
_AS_JSON = frozenset(("message", "value"))
"""Arguments that are JSON."""
_BACKWARDS = frozenset(("history", "notifications"))
"""Lists with the newest page first."""


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
        raise typer.BadParameter(f"there is no call {call!r}{_similar(call)}: `fanline admin --help` lists them")
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


def _similar(call: str) -> str:
    found = get_close_matches(call, CALLS, n=1)
    return f" (perhaps {found[0]})" if found else ""


def _options(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(sign for _, sign, _ in pairs):
        raise typer.BadParameter("write --set NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _ask(
    client: ManagementClient, call: AdminCall, given: Mapping[str, str], options: Mapping[str, str], limit: int
) -> Any:
    path = IN_PATH.sub(lambda found: quote(given[found[1]], safe=":"), call.path)
    if call.method == "POST":
        body = {name: _value(name, given[name]) for name in call.body}
        body |= {name: _value("value", value) for name, value in options.items()}
        return client.call("POST", path, body=body or None)
    if call.method == "DELETE":
        return client.call("DELETE", path)
    if not call.columns:
        return client.call(call.method, path, options)
    return _pages(client, path, options, limit, "before" if call.name in _BACKWARDS else "after")


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
            raise typer.BadParameter(f"{text!r} is not a JSON object, as in '{_A_MESSAGE}'") from None
        return text


def _lines(call: AdminCall, answer: Any) -> Iterator[str]:
    """For people."""
    if call.columns:
        yield from _table(call.columns, answer["items"])
        if "unread" in answer:
            yield f"unread: {answer['unread']}"
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
    rows = [
        [name.rpartition(".")[2] for name in columns],
        *([_cell(_part(item, name))[:_MOST] for name in columns] for item in items),
    ]
    widths = [max(len(row[number]) for row in rows) for number in range(len(columns))]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _part(item: Mapping[str, Any], name: str) -> Any:
    """A field, or one of an object in it: `stats.errors`. None if there is no such object."""
    outer, _, inner = name.partition(".")
    value = item.get(outer)
    return (value or {}).get(inner) if inner else value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        value = round(value, _DIGITS)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
