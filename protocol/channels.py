"""Channel names and the NATS subjects they travel on.

Grammar (channel `task:42` is subject `fanline.pub.task.42`):

    channel   = namespace ":" id                    at most 200 characters, ASCII
    namespace = [a-z][a-z0-9_-]{0,31}
    id        = token *("." token)                  no empty token: NATS subjects have none
    token     = 1*[A-Za-z0-9_=@+~,:/-]

Every channel has exactly one subject and every subject of ours exactly one channel, because a namespace holds no dot
and an id keeps its dots. NATS wildcards (`*`, `>`) and spaces are outside the grammar, so no client can subscribe to
more than it names.
"""

import re
from enum import StrEnum

from protocol.errors import ErrorCode, MessageError

MAX_CHANNEL_LENGTH = 200

_TOKEN = r"[A-Za-z0-9_=@+~,:/\-]+"
_CHANNEL = re.compile(rf"([a-z][a-z0-9_\-]{{0,31}}):({_TOKEN}(?:\.{_TOKEN})*)")


class Direction(StrEnum):
    """What travels on a channel's subject: `pub` is what producers publish, `out` what JetStream republishes with
    offsets, `ctl` the calls to a task's producer (NATS request/reply), `beat` its signs of life.
    """

    PUB = "pub"
    OUT = "out"
    CTL = "ctl"
    BEAT = "beat"


def check_channel(name: str) -> str:
    """Return `name` if it is in the grammar; else raise MessageError(BAD_CHANNEL) saying what is wrong with it."""
    if len(name) > MAX_CHANNEL_LENGTH:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"channel name is longer than {MAX_CHANNEL_LENGTH} characters")
    if _CHANNEL.fullmatch(name) is None:
        shown = name if name.isprintable() else ascii(name)
        raise MessageError(
            ErrorCode.BAD_CHANNEL, f"not a channel name: '{shown}' (expected namespace:id, as in task:42)"
        )
    return name


def namespace_of(channel: str) -> str:
    """The part before the first colon: `task` of `task:42`."""
    return channel.partition(":")[0]


def to_subject(channel: str, direction: Direction = Direction.PUB) -> str:
    """The NATS subject of a valid channel: `task:a.b` -> `fanline.pub.task.a.b`."""
    return f"fanline.{direction}.{channel.replace(':', '.', 1)}"


_PREFIX_LENGTH = len("fanline.pub.")  # and of "fanline.out." and "fanline.ctl."


def channel_of(subject: str) -> str:
    """The channel of a `pub`, `out` or `ctl` subject that `to_subject` made: its inverse, unchecked: the hot path."""
    return subject[_PREFIX_LENGTH:].replace(".", ":", 1)


def from_subject(subject: str) -> str:
    """The channel of a subject in either direction; MessageError(BAD_CHANNEL) for any other string."""
    prefix, direction, namespace, channel_id = [*subject.split(".", 3), "", "", ""][:4]
    # A colon in the namespace's place (fanline.pub.a:b.c) would give a channel whose own subject is another one.
    if prefix != "fanline" or direction not in tuple(Direction) or ":" in namespace:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"not a subject of a channel: {subject!r}")
    return check_channel(f"{namespace}:{channel_id}")
