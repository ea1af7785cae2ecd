"""Routes: patterns of paths such as `/ws/review/{task_id}`, and which of them a path matches. Pure.

    pattern = "/" | 1*("/" segment)                 at most 200 characters
    segment = 1*[A-Za-z0-9._~-] | "{" name "}"
    name    = [a-z][a-z0-9_]{0,31}                  once in a pattern; `user` stands for the client's own user

A path matches if it has the pattern's segments. A name takes any segment that is not empty, percent-decoded as UTF-8;
everything else must be there as it is written. Of two patterns that match a path the one with text in place of a name
counts, from the left: `/ws/board` before `/ws/{room}`.

A channel template says which channel a route joins: `task:{task_id}` with a name of the path, `project:{?project_id}`
with a name of the query, without which there is nothing to join, and `user:{user}`. `project:*` is a whole namespace,
and `project:{?project_id=*}` one channel of it, or all of it if the query does not have the name.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from fanline.protocol.channels import check_channel_or_pattern, is_pattern, namespace_of
from fanline.protocol.compat.escapes import escape_id
from fanline.protocol.errors import HttpError, MessageError

USER = "user"
MAX_PATTERN_LENGTH = 200
_NAME = r"[a-z][a-z0-9_]{0,31}"
_SEGMENT = re.compile(rf"/(?:(?P<text>[A-Za-z0-9._~\-]+)|\{{(?P<name>{_NAME})\}})")
_PLACE = re.compile(rf"\{{(\??{_NAME})(=\*)?\}}")

Segments = tuple[tuple[bool, str], ...]
"""Of each segment whether it is a name, and its text or name."""


class RouteError(ValueError):
    """A route that cannot be used; str() is a sentence for the person who wrote it."""


def parse_pattern(pattern: str) -> Segments:
    """The segments of a pattern. Raises RouteError."""
    found = list(_SEGMENT.finditer(pattern))
    if pattern != "/" and (not found or "".join(each[0] for each in found) != pattern):
        raise RouteError(f"{pattern!r} is no path of a route; write /ws or /ws/review/{{task_id}}")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise RouteError(f"the path of a route has at most {MAX_PATTERN_LENGTH} characters")
    segments = tuple((each["name"] is not None, each["name"] or each["text"]) for each in found)
    names = names_of(segments)
    if len(set(names)) < len(names):
        raise RouteError(f"{pattern} has one name twice")
    if USER in names:
        raise RouteError(f"{pattern}: {{{USER}}} is the client's own user, and no name in a path")
    return segments


def names_of(segments: Segments) -> list[str]:
    """The names in a pattern."""
    return [text for is_name, text in segments if is_name]


class Template(NamedTuple):
    """A channel template."""

    text: str

    def check(self, names: list[str]) -> None:
        """Raises RouteError for what makes no channel name, or has a name that is not one of the path's."""
        for place in _PLACE.finditer(self.text):
            name = place[1]
            if place[2] and not name.startswith("?"):
                raise RouteError(f"{self.text}: only a name of the query may be missing; write {{?{name}=*}}")
            if not name.startswith("?") and name not in (USER, *names):
                raise RouteError(f"{self.text}: the path has no {{{name}}}; for a name of the query write {{?{name}}}")
        try:
            for text in (_PLACE.sub("x", self.text), _PLACE.sub(lambda place: "*" if place[2] else "x", self.text)):
                check_channel_or_pattern(text)
                if is_pattern(text) and namespace_of(text) == USER:
                    raise RouteError(f"{self.text!r} would join the inboxes of all users")
        except MessageError:
            raise RouteError(f"{self.text!r} is no channel; write task:{{task_id}} or user:{{{USER}}}") from None

    @property
    def names(self) -> list[str]:
        """Its names, those of the query with their question mark."""
        return [place[1] for place in _PLACE.finditer(self.text)]

    def channel(self, values: Mapping[str, str]) -> str | None:
        """The channel, or the pattern, with these values, which are escaped; None if one of them is missing or empty
        and has no substitute. The user's name is not escaped: its rights name it as it is. Raises
        MessageError(BAD_CHANNEL) for what is too long.
        """
        parts = {place[0]: _inserted(place, values) for place in _PLACE.finditer(self.text)}
        if not all(parts.values()):
            return None
        return check_channel_or_pattern(_PLACE.sub(lambda place: parts[place[0]], self.text))


class Visit(NamedTuple):
    """What the dialects know of the route by which a client connected."""

    values: Mapping[str, str] = {}
    """Of the names in its path, and of those in its query that it looks at, with a question mark."""
    rooms: str = "project"
    """The namespace of channels that are named without one."""
    greeting: str = ""
    """The text of its first message, for plain clients."""

    @property
    def path_values(self) -> dict[str, str]:
        """The values of the names in the path."""
        return {name: value for name, value in self.values.items() if not name.startswith("?")}

    @property
    def greeting_text(self) -> str:
        """The greeting, with the values of the names in it."""
        return _PLACE.sub(lambda place: self.values.get(place[1], place[0]), self.greeting)


Served = TypeVar("Served")


class RouteTable(Generic[Served]):
    """What is served at which paths. Raises RouteError for an invalid pattern, and for two that match the same
    paths.
    """

    def __init__(self, routes: Mapping[str, Served]) -> None:
        self._at: dict[str, Served] = {}  # of the patterns without names
        self._by_length: dict[int, list[tuple[Segments, Served]]] = {}
        check_distinct(routes)
        for pattern, served in sorted(routes.items(), key=lambda item: _order(parse_pattern(item[0]))):
            segments = parse_pattern(pattern)
            if names_of(segments):
                self._by_length.setdefault(len(segments), []).append((segments, served))
            else:
                self._at[pattern] = served

    def find(self, path: str) -> tuple[Served, dict[str, str]] | None:
        """What is served at a path, and the values of the names in its pattern; None if nothing is."""
        served = self._at.get(path)
        if served is not None:
            return served, {}
        parts = path.split("/")[1:]
        for segments, served in self._by_length.get(len(parts), ()):
            values = _match(segments, parts)
            if values is not None:
                return served, values
        return None


def check_distinct(patterns: Iterable[str]) -> None:
    """Raises RouteError if two patterns match the same paths."""
    known: dict[tuple[str | None, ...], str] = {}
    for pattern in patterns:
        shape = tuple(None if is_name else text for is_name, text in parse_pattern(pattern))
        if shape in known:
            raise RouteError(f"{known[shape]} and {pattern} match the same paths")
        known[shape] = pattern


def query_values(pairs: Iterable[tuple[str, str]], wanted: Iterable[str]) -> dict[str, str]:
    """The wanted names of a query, with a question mark as templates write them. HttpError 400 for a name
    that occurs twice: it would be unclear which one counts.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        key = f"?{name}"
        if key in wanted:
            if key in values:
                raise HttpError(400, f"the query has {name} twice")
            values[key] = value
    return values


def _order(segments: Segments) -> list[bool]:
    return [is_name for is_name, _ in segments]


def _match(segments: Segments, parts: list[str]) -> dict[str, str] | None:
    values = {}
    for (is_name, text), part in zip(segments, parts, strict=True):
        if is_name:
            value = _decoded(part)
            if not value:
                return None
            values[text] = value
        elif part != text:
            return None
    return values


def _inserted(place: re.Match[str], values: Mapping[str, str]) -> str:
    """What a template has as a substitute for a missing name; empty if nothing."""
    value = values.get(place[1], "")
    if not value:
        return "*" if place[2] else ""
    return escape_id(value)


def _decoded(part: str) -> str | None:
    """A segment of a path, whose characters stand for bytes; None if it is not UTF-8."""
    try:
        return unquote_to_bytes(part.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None
