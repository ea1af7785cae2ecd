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
_NAMESPACE_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-"
_TOKEN = rf"[{re.escape(TOKEN_CHARACTERS)}]+"
_NAMESPACE = re.compile(r"[a-z][a-z0-9_\-]{0,31}")
_CHANNEL = re.compile(rf"({_NAMESPACE.pattern}):({_TOKEN}(?:\.{_TOKEN})*)")


def check_channel(name: str) -> str:
    """Return `name` if it is in the grammar. Raises MessageError(BAD_CHANNEL) with what is wrong with it."""
    if len(name) > MAX_CHANNEL_LENGTH:
        raise MessageError(ErrorCode.BAD_CHANNEL, f"channel name is longer than {MAX_CHANNEL_LENGTH} characters")
    if _CHANNEL.fullmatch(name) is None:
        shown = name if name.isprintable() else ascii(name)[1:-1]
        raise MessageError(ErrorCode.BAD_CHANNEL, f"not a channel name: '{shown}' ({_fault(name)})")
    return name


def _fault(name: str) -> str:
    """What is wrong with a name that is not in the grammar."""
    namespace = namespace_of(name)
    if ":" not in name:
        return "expected namespace:id, as in task:42"
    if _NAMESPACE.fullmatch(namespace) is None:
        rule = "a namespace has 1 to 32 of a-z, 0-9, _ and -, and begins with a letter"
        return _odd_character(namespace, 0, _NAMESPACE_CHARACTERS) + rule
    rule = "an id has A-Z, a-z, 0-9, _=@+~,:/- and single dots between them"
    return _odd_character(name, len(namespace), f"{TOKEN_CHARACTERS}.") + rule


def _odd_character(text: str, start: int, allowed: str) -> str:
    """The first character from `start` on that is not allowed, in words; nothing if it is the form that is wrong."""
    for number, character in enumerate(text[start:], start + 1):
        if character not in allowed:
            return f"character {number} is {character!r}: "
    return ""


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
