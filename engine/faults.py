"""Faults: unexpected exceptions, and what they may affect. All background work has an edge here.

A fault is reported once, and stays with what it is about, so that it ends neither this worker nor, one after the other,
all workers that meet it:

- a message that cannot be read, folded or encoded becomes a `gap` in its place (`fault_gap`);
- a channel or a task that cannot be handled is in quarantine, and is tried again after QUARANTINE_SECONDS;
- a background task begins again (`keep`);
- a command is answered with an error; only if it may have left its session half changed, the connection ends.

Only a fault in something that the whole worker depends on, such as the flusher, ends the worker (server.py).
"""

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from fanline.engine.clock import unix_ms
from fanline.engine.counters import Counters
from fanline.engine.log_pace import LogPace
from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.messages.notices import GapData, GapReason

QUARANTINE_SECONDS = 30.0
"""For how long a channel or a task is left alone, and for how long further faults of one subject are not logged."""
RESTART_SECONDS = 3.0
"""The pause before a background task begins again."""
_MOST_LOGGED = 100  # subjects in QUARANTINE_SECONDS: one fault may concern every channel
_log = logging.getLogger("fanline.faults")

OnFault = Callable[[str, str], None]
"""Called in an `except` block with a subject, as a channel, and what could not be done: `Faults.report`."""


class FatalError(Exception):
    """A fault in something that the whole worker depends on: the worker has to end. It is logged already."""


class Faults:
    """Of one worker. `clock`: seconds, Trio's by default."""

    def __init__(self, counters: Counters, clock: Callable[[], float] = trio.current_time) -> None:
        self._counters = counters
        self._clock = clock
        self._pace = LogPace(QUARANTINE_SECONDS, clock, _MOST_LOGGED)
        self._quarantined: dict[str, float] = {}  # channel -> until when

    def report(self, subject: str, what: str) -> None:
        """Count the exception that is being handled, and log it unless its subject has been logged lately."""
        self._counters.faults += 1
        if self._pace.allows(subject):
            _log.exception("%s: %s", subject, what)

    def quarantine(self, channel: str, what: str) -> None:
        """Report the exception that is being handled, and leave the channel alone for a while."""
        self.report(channel, what)
        now = self._clock()
        self._quarantined = {each: until for each, until in self._quarantined.items() if until > now}
        self._quarantined[channel] = now + QUARANTINE_SECONDS

    def seconds_left(self, channel: str) -> float:
        """For how long a channel is still to be left alone; 0 if it is not in quarantine."""
        return max(0.0, self._quarantined.get(channel, 0.0) - self._clock()) if self._quarantined else 0.0

    async def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> NoReturn:
        """Run a background task that does not end by itself; after a fault it begins again."""
        while True:
            try:
                await run()
            except* Exception:  # noqa: BLE001  # it must end neither this worker nor, one by one, all others
                self.report(name, f"failed; it begins again after {RESTART_SECONDS:g} s")
            await trio.sleep(RESTART_SECONDS)


def fault_gap(channel: str | None, offset: int | None) -> Envelope:
    """The `gap` in the place of one message with which the engine cannot deal; `offset`: None if it is not durable."""
    data = GapData(reason=GapReason.FAULT, first=offset, last=offset, count=1 if offset is None else None)
    return Envelope(MessageType.GAP, channel=channel, data=data.fields(), time=unix_ms())
