"""Channel messages on their way to connections: encoded once, shared by all subscribers with the same encoding."""

import msgspec

from fanline.engine.namespaces import Namespace
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.envelope import Envelope

URGENT = 8
"""Priority from which on a message of an `everywhere` namespace passes all others, and reaches every connection."""


class EncodedMessage(msgspec.Struct, frozen=True, gc=False):
    """One channel message and its frame."""

    frame: bytes
    envelope: Envelope


class EncodedBatch(msgspec.Struct, frozen=True, gc=False):
    """Messages of one channel. A fast connection is sent their joined frames; the backlog of a slow one decides about
    each message separately.
    """

    messages: list[EncodedMessage]
    encoding: Encoding
    namespace: Namespace

    def joined(self) -> bytes:
        """All frames as one bytes object."""
        messages = self.messages
        return messages[0].frame if len(messages) == 1 else b"".join([message.frame for message in messages])


def is_urgent(envelope: Envelope, namespace: Namespace) -> bool:
    """Whether a message passes all others and reaches every connection."""
    return namespace.everywhere and envelope.priority is not None and envelope.priority >= URGENT


def is_expired(envelope: Envelope, now_ms: int) -> bool:
    """Whether a message has outlived its own `ttl`."""
    return envelope.ttl is not None and (envelope.time or 0) + envelope.ttl * 1000 < now_ms
