"""What a worker counts: plain integers that only grow, except for the gauges. Read through `Server.statistics()`."""

import msgspec


class Counters(msgspec.Struct):
    """One worker's counts since its start. The hot path increments these fields directly."""

    accepted: int = 0
    """TCP connections taken from the listening socket."""
    refused: int = 0
    """Handshakes answered with an HTTP error."""
    refused_full: int = 0
    """Clients that were told that the worker has no room."""
    refused_addresses: int = 0
    """Handshakes from addresses that may not connect."""
    refused_address_connections: int = 0
    """Handshakes from addresses that have as many connections as they may have."""
    refused_address_handshakes: int = 0
    """Handshakes and HTTP requests from addresses that have sent too many."""
    refused_user_connections: int = 0
    """Connections of users that have as many as they may have, replaced ones among them."""
    refused_proxy_headers: int = 0
    """Connections from trusted proxies that did not begin with a good header."""
    handshakes_paced: int = 0
    """Times that accepting a connection had to wait."""
    handshakes_late: int = 0
    """Clients that did not send their request in time."""
    handshakes_cut: int = 0
    """Clients that were given up before, because too many kept the worker waiting."""
    forwarded: int = 0
    """HTTP requests that were passed on to the control process."""
    forwards_refused: int = 0
    """HTTP requests that were not passed on, because too many were under way."""
    opened: int = 0
    """WebSockets opened."""
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
    flushes_timed: int = 0
    """Times that what had come was given out to all who hear it, and that it was noted how long this took: always if it
    went to many, and each eighth time if it went to few.
    """
    flush_microseconds: int = 0
    """What these took in all, from the first subscriber to the last."""
    flushes_slow: int = 0
    """Those that took longer than a tenth of a second."""
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
    flooding_closed: int = 0
    """Connections closed because they sent more than they may for long."""
    answers_slowed: int = 0
    """Times that a connection had asked for so much that it was read more slowly."""
    too_big_closed: int = 0
    """Connections closed because of a message over the size limit."""
    subscriptions_refused: int = 0
    """Subscriptions beyond the most that a connection may have."""
    broken_closed: int = 0
    """Connections closed because of a frame: it broke the WebSocket protocol, was too large or of the wrong kind."""
    events_dropped: int = 0
    """Server events that were not said, because NATS was away or did not keep up."""
    questions: int = 0
    """Messages and calls that the application was asked to answer."""
    questions_failed: int = 0
    """Those that it did not answer in time, or not as it should."""
    channels: int = 0
    """Gauge: channels with at least one local subscriber."""
