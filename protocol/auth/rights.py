"""Rights on channels: what may be done, and on which channels. Pure values, compared on each command.

A grant is written `PATTERN:RIGHTS`, as in `task:*:sub+call`; tokens write it as `{"task:*": ["sub", "call"]}`.

    pattern = "*"                             every channel
            | namespace ":*"                  every channel of a namespace
            | namespace ":" start "*"         every channel of it whose id begins so
            | namespace ":" id                one channel

`{user}` at the end of a channel's name stands for the user's name, as in `user:{user}`, escaped
(protocol/compat/escapes.py); where that gives no valid channel name, nothing is granted. It cannot precede a star:
`doc:{user}*` would give the documents of `anna` to `ann`.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntFlag
from functools import lru_cache
from typing import Annotated, NamedTuple

from msgspec import Meta

from fanline.protocol.channels import check_channel, namespace_of
from fanline.protocol.compat.escapes import escape_id
from fanline.protocol.errors import MessageError

USER = "{user}"
EVERY_CHANNEL = "*"
GrantText = Annotated[str, Meta(min_length=3, max_length=300, description="grants like task:*:sub+call")]
MAX_GRANTS = 256
"""Grants that one token may carry."""


class Right(IntFlag):
    """What may be done on a channel. `call` is every verb; `cancel` and `answer` are parts of it."""

    NONE = 0
    SUB = 1
    PUB = 2
    PRESENCE = 4
    HISTORY = 8
    CANCEL = 16
    ANSWER = 32
    """`approve`, `reject` and `input`."""
    CALL = 64 | CANCEL | ANSWER


RIGHT_NAMES: Mapping[str, Right] = {
    "sub": Right.SUB,
    "pub": Right.PUB,
    "presence": Right.PRESENCE,
    "history": Right.HISTORY,
    "call": Right.CALL,
    "cancel": Right.CANCEL,
    "answer": Right.ANSWER,
}
EVERY_RIGHT = Right.SUB | Right.PUB | Right.PRESENCE | Right.HISTORY | Right.CALL

_VERB_RIGHTS: Mapping[str, Right] = {
    "status": Right.SUB,  # what a subscriber sees anyway
    "cancel": Right.CANCEL,
    "approve": Right.ANSWER,
    "reject": Right.ANSWER,
    "input": Right.ANSWER,
}


class GrantError(ValueError):
    """A grant that cannot be read; str() is a sentence for the person who wrote it."""


class Grant(NamedTuple):
    """Rights on the channels of one pattern."""

    pattern: str
    rights: Right


def right_of_verb(verb: str) -> Right:
    """What a `call` with this verb needs; verbs of the application's own need the whole of `call`."""
    return _VERB_RIGHTS.get(verb, Right.CALL)


def parse_grant(text: str) -> Grant:
    """`task:*:sub+call` as a grant. Raises GrantError."""
    pattern, _, rights = text.rpartition(":")
    if ":" not in pattern and pattern != "*":
        raise GrantError(f"{text!r} is no grant: write PATTERN:RIGHTS, as in task:*:sub+call or *:sub")
    return make_grant(pattern, [name.strip() for name in rights.split("+")])


def make_grant(pattern: str, names: Iterable[str]) -> Grant:
    """A grant of the rights of these names. Raises GrantError."""
    return _grant(pattern, tuple(names))


@lru_cache(maxsize=1024)
def _grant(pattern: str, names: tuple[str, ...]) -> Grant:
    rights = Right.NONE
    for name in names:
        if name not in RIGHT_NAMES:
            raise GrantError(f"{name!r} on {pattern!r} is no right; rights are {', '.join(RIGHT_NAMES)}")
        rights |= RIGHT_NAMES[name]
    _check_pattern(pattern)
    return Grant(pattern, rights)


def right_names(rights: Right) -> list[str]:
    """The names of rights, without those that are part of another one."""
    held = [name for name, right in RIGHT_NAMES.items() if right in rights]
    return [name for name in held if "call" not in held or name not in ("cancel", "answer")]


class Grants:
    """All that one identity may do: a table, which identities with the same grants share, and the user's name."""

    __slots__ = ("_table", "_user")

    def __init__(self, grants: Sequence[Grant] = (), user: str | None = None) -> None:
        self._table = _table(tuple(grants))
        self._user = user and escape_id(user)

    def on(self, channel: str) -> Right:
        """The rights on a channel; for `ns:*` those on the whole namespace, for `*` those on every channel."""
        return self._table.on(channel, self._user)


class _Table:
    """What some grants allow, whoever the user is."""

    __slots__ = ("_all", "_by_name", "_by_start", "_own")

    def __init__(self) -> None:
        self._all = Right.NONE
        self._by_name: dict[str, Right] = {}
        """Channel, or namespace for all its channels (a namespace holds no colon) -> rights."""
        self._by_start: list[Grant] = []
        self._own: list[Grant] = []
        """Start of a name that ends with the user's, escaped -> rights."""

    def add(self, pattern: str, rights: Right) -> None:
        if pattern.endswith(USER):
            self._own.append(Grant(pattern.removesuffix(USER), rights))
        elif pattern == EVERY_CHANNEL:
            self._all |= rights
        elif pattern.endswith(":*") and pattern.count(":") == 1:
            self._by_name[namespace_of(pattern)] = self._by_name.get(namespace_of(pattern), Right.NONE) | rights
        elif pattern.endswith("*"):
            self._by_start.append(Grant(pattern[:-1], rights))
        else:
            self._by_name[pattern] = self._by_name.get(pattern, Right.NONE) | rights

    def on(self, channel: str, user: str | None) -> Right:
        found = self._all | self._by_name.get(channel, Right.NONE)
        found |= self._by_name.get(namespace_of(channel), Right.NONE)
        for start, rights in self._by_start:
            if channel.startswith(start):
                found |= rights
        for start, rights in self._own:
            if user and channel == start + user and _is_channel(channel):
                found |= rights
        return found


@lru_cache(maxsize=256)  # tokens of one kind grant the same; those that do not push each other out
def _table(grants: tuple[Grant, ...]) -> _Table:
    table = _Table()
    for pattern, rights in grants:
        table.add(pattern, rights)
    return table


def _check_pattern(pattern: str) -> None:
    if not _is_pattern(pattern):
        raise GrantError(
            f"{pattern!r} is no pattern of channels; write task:42, task:build-*, task:*, user:{USER} or *"
        )


def _is_pattern(pattern: str) -> bool:
    if pattern.endswith(USER):
        return _is_channel(f"{pattern.removesuffix(USER)}x")
    if pattern.endswith("*"):
        return pattern == "*" or _is_channel(f"{pattern[:-1]}x")
    return _is_channel(pattern)


def _is_channel(name: str) -> bool:
    try:
        check_channel(name)
    except MessageError:
        return False
    return True
