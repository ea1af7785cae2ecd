"""The NATS subjects of channels: `task:42` is `fanline.pub.task.42`.

Each channel has exactly one subject in each direction, and each of our subjects exactly one channel.
"""

from enum import StrEnum

from fanline.protocol.channels import check_channel
from fanline.protocol.errors import ErrorCode, MessageError


class Direction(StrEnum):
    """What a subject of a channel carries: `pub` what producers publish, `out` what JetStream republishes with
    offsets, `ctl` the calls to a task's producer (NATS request/reply), `beat` the producer's signs of life.
    """

    PUB = "pub"
    OUT = "out"
    CTL = "ctl"
    BEAT = "beat"


def to_subject(channel: str, direction: Direction = Direction.PUB) -> str:
    """The NATS subject of a valid channel: `task:a.b` -> `fanline.pub.task.a.b`."""
    return f"fanline.{direction}.{channel.replace(':', '.', 1)}"


_PREFIX_LENGTH = len("fanline.pub.")  # the same for `out` and `ctl`


def channel_of(subject: str) -> str:
    """The inverse of `to_subject` for `pub`, `out` and `ctl`. Unchecked, because it is on the hot path."""
    return subject[_PREFIX_LENGTH:].replace(".", ":", 1)


def from_subject(subject: str) -> str:
    """The channel of a subject in any direction. Raises MessageError(BAD_CHANNEL) for any other string."""
    prefix, direction, namespace, channel_id = [*subject.split(".", 3), "", "", ""][:4]
    # With a colon in the namespace (fanline.pub.a:b.c) the channel's own subject would be another one.
    if prefix != "fanline" or direction not in tuple(Direction) or ":" in namespace:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"not a subject of a channel: {subject!r}")
    return check_channel(f"{namespace}:{channel_id}")
