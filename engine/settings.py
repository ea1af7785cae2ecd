"""The settings of one worker's engine. Frozen, checked when they are read, with their units in the docstrings."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.engine.namespaces import Namespace
from fanline.engine.routes import Route
from fanline.protocol.websocket.addresses import NetworkName
from fanline.protocol.websocket.origins import HostName, OriginName

_Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class EngineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits and timeouts of one worker. Times are in seconds, unless a docstring says otherwise."""

    max_message_bytes: Annotated[int, Meta(ge=128, le=16 * 1024 * 1024)] = 64 * 1024
    """The largest message that a client may send, all fragments together."""
    max_subscriptions: Annotated[int, Meta(ge=1)] = 1024
    """Channels that one connection may be subscribed to."""
    max_connections: Annotated[int, Meta(ge=0)] = 0
    """Connections of one worker; further ones are answered with 503. 0: as many as its open-file limit allows."""
    max_handshakes: Annotated[int, Meta(ge=16)] = 1024
    """Connections of one worker that are not WebSockets yet. Further ones wait to be accepted, and where clients keep
    the worker waiting for their request, the one that has done so longest is answered with 408.
    """
    handshakes_per_second: Annotated[float, Meta(ge=0, le=100_000)] = 0.0
    """Connections a second that one worker accepts; further ones wait, and none is refused. 0: any number."""
    handshake_timeout: _Seconds = 10.0
    """How long a client may take for its TLS handshake, and for its request head."""
    forwarded_requests: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """HTTP requests of one worker that the control process may have to answer at a time; further ones get 503."""
    forward_timeout: _Seconds = 10.0
    """How long the control process may take for an answer (then 503), and how long the client for reading it."""
    heartbeat: _Seconds = 30.0
    """Time between two pings on one connection."""
    idle_timeout: _Seconds = 90.0
    """A connection without any input for this time is closed (4009), unless its route says otherwise."""
    close_timeout: _Seconds = 3.0
    """How long a client may take to read what is queued before a close frame, and to answer it."""
    bus_timeout: _Seconds = 5.0
    """How long the bus may take to confirm a subscription; then the client gets `unavailable`."""
    call_timeout: _Seconds = 5.0
    """How long the producer of a task may take to answer a `call`; then the viewer gets `no_answer`, or for an answer
    or a `cancel` `ok` with `{"delivered": false}`.
    """
    outbox_bytes: Annotated[int, Meta(ge=4096)] = 1024 * 1024
    """Bytes queued for one slow connection beyond its kernel buffer; above it the namespace's `slow` policy decides."""
    outbox_messages: Annotated[int, Meta(ge=16)] = 16_384
    """The same limit in messages."""
    max_connections_per_address: Annotated[int, Meta(ge=0)] = 10_000
    """Connections of one client address to one worker; further ones are answered with 429. 0: any number."""
    handshakes_per_address: Annotated[float, Meta(ge=0, le=100_000)] = 100.0
    """Handshakes a second of one client address with one worker, and HTTP requests without a key or token that is
    accepted; further ones are answered with 429. 0: any number.
    """
    messages_per_second: Annotated[float, Meta(ge=0)] = 1000.0
    """Messages a second that a client may send, each fragment counted; beyond, it is read more slowly, and later
    closed. 0: any number.
    """
    bytes_per_second: Annotated[float, Meta(ge=0)] = 4.0 * 1024 * 1024
    """The same limit in bytes; a compressed message counts with its inflated size."""
    reading_share: Annotated[float, Meta(ge=0, le=1)] = 0.02
    """The share of a core that reading the messages of one client may take, with the same consequences; 0: any."""
    trusted_proxies: tuple[NetworkName, ...] = ()
    """Proxies whose `X-Forwarded-For` counts, and whose PROXY protocol headers are read."""
    proxy_protocol: bool = False
    """Whether connections from trusted proxies begin with a header of the PROXY protocol (version 1 or 2)."""
    allow_addresses: tuple[NetworkName, ...] = ()
    """The only addresses whose clients may connect; empty: all."""
    deny_addresses: tuple[NetworkName, ...] = ()
    """Addresses whose clients may not connect."""
    hosts: tuple[HostName, ...] = ()
    """Names by which clients may know this server, besides loopback names and its own address."""
    origins: tuple[OriginName, ...] = ()
    """Origins whose pages may connect, besides pages of the very host and port that they connect to."""
    presence_users: Annotated[int, Meta(ge=1, le=2000)] = 1000
    """Users of a channel up to which presence names each; of a larger channel, clients get counts only."""
    audit_log: str = ""
    """Path of a file to which JSON lines are appended: who came, who was refused, who did what. Empty: none."""
    audit_events: bool = False
    """Publish the same lines on the NATS subject `fanline.event.audit`, without a confirmation."""
    compression: bool = False
    """Offer permessage-deflate: less traffic for more CPU. Each message is compressed once for all its receivers."""
    ssl_certfile: str = ""
    """Path of the certificate chain, PEM; with it the server speaks wss://. Needs ssl_keyfile."""
    ssl_keyfile: str = ""
    """Path of the private key of that certificate, PEM, without a passphrase."""
    namespaces: dict[str, Namespace] = {}
    """Namespaces that are declared in addition to the default ones, or in their place."""
    routes: dict[str, Route] = {}
    """Path -> route, in addition to the default ones, or in their place."""
    bucket_bytes: Annotated[int, Meta(ge=-1)] = -1
    """The most that a bucket which grows with what is done may hold, before it drops what is oldest; -1: no limit."""
    log_messages: Annotated[int, Meta(ge=1)] = 1000
    """Messages per durable channel that a worker keeps for clients that come back; older ones come from the stream."""
    log_bytes: Annotated[int, Meta(ge=1024 * 1024)] = 256 * 1024 * 1024
    """Bytes that these messages take in a worker's memory, of all channels; those of one channel at most an eighth."""
    coalesce: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """The longest rest of the flusher after a flush, in milliseconds; 0: the next scheduler pass flushes again."""
