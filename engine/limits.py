"""The limits on what clients may take of a worker: each with its setting, what a client that meets it gets, and its
counter. docs/reference/limits.md has the same table; a test compares.
"""

import logging
import time
from collections.abc import Callable
from enum import Enum

from fanline.engine.counters import Counters
from fanline.engine.log_pace import LogPace

_log = logging.getLogger("fanline.limits")


class Limit(Enum):
    """A limit: its settings, none if the code fixes it; what a client that meets it gets; its counter."""

    CONNECTIONS = ("engine.max_connections",), "503", "refused_full"
    HANDSHAKES = ("engine.max_handshakes",), "waits; 408", "handshakes_cut"
    HANDSHAKE_PACE = ("engine.handshakes_per_second",), "waits", "handshakes_paced"
    HANDSHAKE_TIME = ("engine.handshake_timeout",), "408", "handshakes_late"
    ADDRESSES = ("engine.allow_addresses", "engine.deny_addresses"), "403", "refused_addresses"
    ADDRESS_CONNECTIONS = ("engine.max_connections_per_address",), "429", "refused_address_connections"
    ADDRESS_HANDSHAKES = ("engine.handshakes_per_address",), "429", "refused_address_handshakes"
    FORWARDED = ("engine.forwarded_requests",), "503", "forwards_refused"
    PROXY_HEADER = ("engine.proxy_protocol",), "closed", "refused_proxy_headers"
    USER_CONNECTIONS = ("access.connections",), "429; 4429", "refused_user_connections"
    MESSAGES = ("engine.messages_per_second",), "limit_exceeded; read slowly", "slowed"
    BYTES = ("engine.bytes_per_second",), "limit_exceeded; read slowly", "slowed"
    WORK = ("engine.reading_share",), "limit_exceeded; read slowly", "slowed"
    FLOODING = (), "4429", "flooding_closed"
    ANSWERS = ("engine.bytes_per_second",), "read slowly", "answers_slowed"
    MESSAGE_SIZE = ("engine.max_message_bytes",), "1009", "too_big_closed"
    SUBSCRIPTIONS = ("engine.max_subscriptions",), "limit_exceeded", "subscriptions_refused"
    OUTBOX = ("engine.outbox_bytes", "engine.outbox_messages"), "4008", "slow_closed"
    SILENCE = ("engine.idle_timeout",), "4009", "silent_closed"

    def __init__(self, settings: tuple[str, ...], outcome: str, counter: str) -> None:
        self.settings = settings
        self.outcome = outcome
        self.counter = counter


class LimitHits:
    """Counts what meets a limit, and logs it at a bounded rate. `clock`: seconds that never go back."""

    def __init__(self, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self.counters = counters
        self._pace = LogPace(clock=clock)
        self._logged: dict[Limit, int] = {}
        """Limit -> how many had met it when it was last logged."""

    def hit(self, limit: Limit, what: object = "") -> None:
        """A client has hit a limit; `what` says which one, or by how much, without secrets."""
        count = getattr(self.counters, limit.counter) + 1
        setattr(self.counters, limit.counter, count)
        if self._pace.allows(limit):
            logged = self._logged.get(limit, count - 1)
            self._logged[limit] = count
            names = " or ".join(limit.settings) or "the rate of a connection"
            _log.warning("%s: %s (%d since the last such line)", names, what or limit.outcome, count - logged)
