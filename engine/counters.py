"""What a worker counts. Plain integers that only grow, but for the gauges; read through `Server.statistics()`."""

import msgspec


class Counters(msgspec.Struct):
    """One worker's counts since its start. The hot path adds to these in position."""

    accepted: int = 0
    """TCP connections taken from the listening socket."""
    refused: int = 0
    """Handshakes answered with an HTTP error."""
    connections: int = 0
    """Gauge: open WebSockets."""
    messages_in: int = 0
    """Messages the bus delivered."""
    messages_bad: int = 0
    """Of those, the ones that were no envelope and no value: dropped and logged."""
    deliveries: int = 0
    """Messages pushed to outboxes: one message to a thousand subscribers counts a thousand."""
    commands: int = 0
    """Commands read from clients."""
    errors: int = 0
    """`err` answers sent."""
    dropped: int = 0
    """Messages left out for slow connections, by the policy `drop`."""
    slow_closed: int = 0
    """Connections closed because their outbox overflowed."""
    silent_closed: int = 0
    """Connections closed because nothing was heard from them."""
    broken_closed: int = 0
    """Connections closed because they broke the WebSocket protocol."""
    channels: int = 0
    """Gauge: channels with at least one local subscriber."""
