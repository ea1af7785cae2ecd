"""The NATS subjects that channels travel on: `task:42` is `fanline.pub.task.42`.

Every channel has exactly one subject in each direction, and every subject of ours exactly one channel.
"""

from enum import StrEnum

from fanline.protocol.channels import check_channel
from fanline.protocol.errors import ErrorCode, MessageError


class Direction(StrEnum):
    """What travels on a channel's subject: `pub` is what producers publish, `out` what JetStream republishes with
    offsets, `ctl` the calls to a task's producer (NATS request/reply), `beat` its signs of life.
    """

    PUB = "pub"
    OUT = "out"
    CTL = "ctl"
    BEAT = "beat"


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
