"""What a worker counts: plain integers that only grow, except for the gauges. Read through `Server.statistics()`."""

import msgspec


class Counters(msgspec.Struct):
    """One worker's counts since its start. The hot path increments these fields directly."""

    accepted: int = 0
    """TCP connections taken from the listening socket."""
    refused: int = 0
    """Handshakes answered with an HTTP error."""
    connections: int = 0
    """Gauge: open WebSockets."""
    messages_in: int = 0
    """Messages that the bus has delivered."""
    messages_bad: int = 0
    """Published messages that could not be read, and task events that do not fit: dropped and logged."""
    faults: int = 0
    """Exceptions that nobody expected, whatever they were about; their log lines are fewer."""
    tasks_refused: int = 0
    """Messages of tasks that no event had announced, and that were not monitored because there were too many such."""
    deliveries: int = 0
    """Messages pushed to outboxes: one message to a thousand subscribers counts as a thousand."""
    commands: int = 0
    """Commands read from clients."""
    errors: int = 0
    """`err` answers sent."""
    dropped: int = 0
    """Messages left out for slow connections, by the policy `drop`."""
    slow_closed: int = 0
    """Connections closed because their outbox overflowed."""
    silent_closed: int = 0
    """Connections closed because the client was silent for too long."""
    slowed: int = 0
    """Times that a connection sent more than it may, and was read more slowly."""
    broken_closed: int = 0
    """Connections closed because of a frame: it broke the WebSocket protocol, was too large or of the wrong kind."""
    channels: int = 0
    """Gauge: channels with at least one local subscriber."""
