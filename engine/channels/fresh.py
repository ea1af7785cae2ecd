"""Messages as one client is sent them: nothing expired, and each follows on the one that is sent before it. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from fanline.engine.sending.batch import is_expired
from fanline.protocol.envelope import Envelope, MessageType


def fresh(messages: Iterable[Envelope], now_ms: int) -> list[Envelope]:
    """Leave out what has expired by its own `ttl`; the first message follows on what the log says."""
    return list(_chain(messages, None, now_ms))


def following(messages: Iterable[Envelope], offset: int, now_ms: int) -> list[Envelope]:
    """The same for a client that has everything up to `offset`: the first message follows on that."""
    return list(_chain(messages, offset, now_ms))


def _chain(messages: Iterable[Envelope], follows: int | None, now_ms: int) -> Iterator[Envelope]:
    """`follows`: the offset the next message follows on; None: on what the log says."""
    for message in messages:
        if message.type == MessageType.GAP:
            follows = message.data["to"]
            yield message
        elif is_expired(message, now_ms):
            follows = message.previous if follows is None else follows
        elif follows is None or follows == message.previous:
            yield message
            follows = None
        else:
            yield msgspec.structs.replace(message, previous=follows)
            follows = None
