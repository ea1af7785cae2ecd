"""Channel names.

Grammar (channel `task:42` is subject `fanline.pub.task.42`):

    channel   = namespace ":" id                    at most 200 characters, ASCII
    namespace = [a-z][a-z0-9_-]{0,31}
    id        = token *("." token)                  no empty token: NATS subjects have none
    token     = 1*[A-Za-z0-9_=@+~,:/-]

Each channel has exactly one subject and each of our subjects exactly one channel, because a namespace contains no dot
and an id keeps its dots. NATS wildcards (`*`, `>`) and spaces are outside the grammar, so a client can never subscribe
to more than it names. `task:*` is no channel, but a pattern: all channels of a namespace, for `sub` and `unsub` alone.
"""

import re

from fanline.protocol.errors import ErrorCode, MessageError

MAX_CHANNEL_LENGTH = 200

TOKEN_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_=@+~,:/-"
_TOKEN = rf"[{re.escape(TOKEN_CHARACTERS)}]+"
_CHANNEL = re.compile(rf"([a-z][a-z0-9_\-]{{0,31}}):({_TOKEN}(?:\.{_TOKEN})*)")


def check_channel(name: str) -> str:
    """Return `name` if it is in the grammar. Raises MessageError(BAD_CHANNEL) with what is wrong with it."""
    if len(name) > MAX_CHANNEL_LENGTH:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"channel name is longer than {MAX_CHANNEL_LENGTH} characters")
    if _CHANNEL.fullmatch(name) is None:
        shown = name if name.isprintable() else ascii(name)
        raise MessageError(
            ErrorCode.BAD_CHANNEL, f"not a channel name: '{shown}' (expected namespace:id, as in task:42)"
        )
    return name


def is_channel(name: str) -> bool:
    """Whether `name` is in the grammar."""
    return len(name) <= MAX_CHANNEL_LENGTH and _CHANNEL.fullmatch(name) is not None


def namespace_of(channel: str) -> str:
    """The part before the first colon: `task` of `task:42`."""
    return channel.partition(":")[0]


def pattern_of(channel: str) -> str:
    """The pattern of all channels of a channel's namespace: `task:*` of `task:42`."""
    return f"{channel.partition(':')[0]}:*"


def is_pattern(channel: str) -> bool:
    """Whether this stands for all channels of a namespace. No channel's own name does."""
    return channel == pattern_of(channel)


def check_channel_or_pattern(name: str) -> str:
    """The same as `check_channel`, for what a client may subscribe to: `task:*` as well."""
    check_channel(f"{name[:-1]}x" if is_pattern(name) else name)
    return name
