"""What one worker's engine may be told. Frozen, checked when it is made, units in the docstrings."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.engine.namespaces import Namespace

_Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits and times of one worker."""

    max_message_bytes: Annotated[int, Meta(ge=128, le=16 * 1024 * 1024)] = 64 * 1024
    """Largest message a client may send, over all its fragments."""
    max_subscriptions: Annotated[int, Meta(ge=1)] = 1024
    """Channels one connection may be subscribed to."""
    max_connections: Annotated[int, Meta(ge=0)] = 0
    """Connections of one worker; further ones are answered 503. 0: as many as its open-file limit leaves room for."""
    handshake_timeout: _Seconds = 10.0
    """Time a client has for its request head."""
    heartbeat: _Seconds = 30.0
    """Time between two pings of one connection."""
    idle_timeout: _Seconds = 75.0
    """A connection from which nothing was heard for so long is closed (4009)."""
    close_timeout: _Seconds = 3.0
    """Time a client has to answer a close frame, and to read what is queued before it."""
    bus_timeout: _Seconds = 5.0
    """Time the bus has to confirm a subscription before the client is told `unavailable`."""
    call_timeout: _Seconds = 5.0
    """Time the producer of a task has to answer a `call`."""
    outbox_bytes: Annotated[int, Meta(ge=4096)] = 1024 * 1024
    """Bytes queued for one slow connection beyond its kernel buffer; over it the connection is closed (4008)."""
    outbox_messages: Annotated[int, Meta(ge=16)] = 16_384
    """The same bound in messages."""
    compression: bool = False
    """Offer permessage-deflate: less traffic for more CPU; each message is compressed once for all its receivers."""
    ssl_certfile: str = ""
    """Path of the certificate chain, PEM; with it the server speaks wss://. Goes with ssl_keyfile."""
    ssl_keyfile: str = ""
    """Path of the certificate's private key, PEM."""
    namespaces: dict[str, Namespace] = {}
    """What is declared beside, or instead of, the namespaces that are there by default."""
    log_messages: Annotated[int, Meta(ge=1)] = 1000
    """Messages of a durable channel that a worker keeps for those who come back; older ones come from the stream."""
    coalesce: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """Most milliseconds the flusher rests after a flush; 0 flushes on the next scheduler pass."""
