"""All messages of one publishing thread. Without I/O; in the loop's thread."""

import logging
import math
from collections.abc import Callable

from fanline.nats.jetstream import NAMES
from fanline.nats.requests import NatsRequests
from fanline.protocol.nats.names import BOARD_SUBJECT, NOTIFY_SUBJECT, STREAM_NAMES
from fanline.protocol.nats.replies import Complaint
from fanline.publishing.lane import BoardLane, Lane, OutgoingMessage

EXIT_SECONDS = 5.0
"""How long the end of the program waits for what is not yet published, if NATS was ever reached."""
_log = logging.getLogger("fanline")


class Outgoing:
    """The user of a NatsLoop. `finished` is called when the program ends and nothing is left to do."""

    def __init__(self, requests: NatsRequests, finished: Callable[[], None]) -> None:
        self.reached = False
        """Whether there has been a connection."""
        self._requests = requests
        self._finished = finished
        self._lanes: dict[tuple[str, float], Lane] = {}
        self._connected = self._warned = False
        self._why = ""  # why there is no connection
        self._end_at: float | None = None

    def add(self, message: OutgoingMessage) -> None:
        lane = self._lanes.get(message.lane)
        if lane is None:
            kind = BoardLane if message.subject == BOARD_SUBJECT else Lane
            lane = self._lanes[message.lane] = kind(self._requests, message.keep)
            lane.lost(self._why)
        lane.add(message)

    def finish(self, end_at: float) -> None:
        """The program ends at this time, or when all is published."""
        self._end_at = end_at

    def end(self) -> None:
        """Nothing is published any more."""
        for lane in self._lanes.values():
            lane.end(self._why or "the program has ended")

    # --- for the loop --------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        if self._warned:
            _log.info("connected to NATS again: messages are being published")
        self.reached = self._connected = True
        self._warned, self._why = False, ""
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane}
        for lane in self._lanes.values():
            lane.connected()

    def lost(self, why: str | None, now: float) -> None:
        self._connected = False
        self._why = why or "the NATS server is about to stop"
        if why is not None and not self._warned and any(self._lanes.values()):
            self._warned = True
            _log.warning("messages are waiting for NATS: %s", why)
        for lane in self._lanes.values():
            lane.lost(self._why)

    def denied(self, complaint: Complaint) -> None:
        own = (BOARD_SUBJECT, NOTIFY_SUBJECT)
        is_theirs = complaint.subject.startswith("fanline.pub.") or complaint.subject in own
        if not is_theirs and complaint.subject not in (NAMES, STREAM_NAMES):
            _log.warning("%s", complaint.text)  # answers: nothing can be stored
        for lane in self._lanes.values():
            lane.denied(complaint.subject if is_theirs else None, complaint.text)

    def step(self, now: float) -> float:
        if self._end_at is not None and now >= self._end_at:
            self.end()
        due = min(
            (lane.step(now, connected=self._connected, reached=self.reached) for lane in self._lanes.values()),
            default=math.inf,
        )
        if self._end_at is None:
            return due
        if not any(self._lanes.values()):
            self._finished()
        return min(due, self._end_at)
