"""An open connection to a nats-server, without I/O: it says what to write, and acts on what was read.

Two shells carry it: a Trio one in the workers (engine/bus/nats/client/), and one on a plain thread in producers
(fanline/nats). A shell reads and calls `receive`, writes what `take_output` returns, and calls `tick` regularly.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from fanline.protocol.nats.commands import PING, PONG, subscribe
from fanline.protocol.nats.parser import NatsError, NatsMessage, Parser, Reply
from fanline.protocol.nats.replies import Complaint, ComplaintKind, ServerInfo, complaint_of, parse_info

TICK_SECONDS = 0.5
"""How often a shell calls `tick`."""
PING_TICKS = 3
DEAD_TICKS = 8
"""A connection on which nothing was read for this many ticks is given up. Ticks are counted, rather than time, so that
a process that was itself stopped first reads what has arrived meanwhile.
"""
DEAD_SECONDS = TICK_SECONDS * DEAD_TICKS

_MOST_LOGGED = 100  # subjects, on one connection
_log = logging.getLogger("fanline.nats")

Sink = Callable[[NatsMessage], None]
"""Takes the messages of a subscription, synchronously; what it raises is logged."""
Done = Callable[[NatsError | None], None]
"""Called without an error once the server has processed what was sent before; with one if that is not known."""


class NatsSubscription(NamedTuple):
    """What the number of a subscription stands for."""

    subject: str
    sink: Sink
    queue: str = ""


class NatsSubscriptions:
    """The subscriptions of a client, which outlive its connections."""

    def __init__(self) -> None:
        self.by_sid: dict[int, NatsSubscription] = {}
        self._last = 0

    def add(self, subject: str, sink: Sink, queue: str = "") -> int:
        """The number of a new subscription. `queue`: of its members, one gets each message."""
        self._last += 1
        self.by_sid[self._last] = NatsSubscription(subject, sink, queue)
        return self._last

    def redirect(self, sid: int, sink: Sink) -> None:
        """Have another sink called from now on."""
        self.by_sid[sid] = self.by_sid[sid]._replace(sink=sink)

    def remove(self, sid: int) -> None:
        """Its sink is not called any more."""
        del self.by_sid[sid]

    def commands(self) -> bytes:
        """The commands that make all of them on a new connection."""
        return b"".join(subscribe(subject, sid, queue) for sid, (subject, _, queue) in self.by_sid.items())


class NatsConnection:
    """`on_work` is called when there is something to write again, `on_complaint` with what the server denies."""

    def __init__(
        self,
        info: ServerInfo,
        parser: Parser,
        subscriptions: NatsSubscriptions,
        *,
        on_work: Callable[[], None],
        on_complaint: Callable[[Complaint], None],
    ) -> None:
        self.info = info
        """The newest one: a server sends it again when its cluster changes, or when it is about to stop."""
        self.unsent_bytes = 0
        """What is queued, and what was taken but not yet written."""
        self._parser = parser
        self._subscriptions = subscriptions.by_sid
        self._on_work = on_work
        self._on_complaint = on_complaint
        self._queue: list[bytes] = []
        self._pongs: deque[Done] = deque()
        self._silent_ticks = 0
        self._failed: set[str] = set()  # subjects of messages whose sinks have raised

    # --- what is to be written ------------------------------------------------------------------------------------

    def send(self, command: bytes) -> None:
        """Queue whole commands."""
        self._queue.append(command)
        self.unsent_bytes += len(command)
        if len(self._queue) == 1:
            self._on_work()

    def confirm(self, done: Done) -> None:
        """Call `done` once the server has processed everything queued before."""
        self._pongs.append(done)
        self.send(PING)

    def take_output(self) -> bytes:
        """Everything queued; to be written, and then passed to `written`."""
        data, self._queue = b"".join(self._queue), []
        return data

    def written(self, size: int) -> None:
        """This many bytes of what was taken are written."""
        self.unsent_bytes -= size

    # --- what was read --------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Hand each message to its sink, and answer the server. Raises NatsError if the connection has to end."""
        self._silent_ticks = 0
        subscriptions = self._subscriptions
        for item in self._parser.feed(data):
            if isinstance(item, NatsMessage):
                subscription = subscriptions.get(item.sid)  # none: it ended while this was on its way
                if subscription is not None:
                    try:
                        subscription.sink(item)
                    except Exception:  # noqa: BLE001  # a fault in one sink must not end the connection of all others
                        self._report(item.subject)
            else:
                self._take_reply(item)

    def _report(self, subject: str) -> None:
        """Log the exception that is being handled, once for a subject: whoever may publish there may do so often."""
        if subject not in self._failed and len(self._failed) < _MOST_LOGGED:
            self._failed.add(subject)
            _log.exception("a message on %s could not be delivered", subject)

    def _take_reply(self, reply: Reply) -> None:
        if reply.verb == "PING":
            self.send(PONG)
        elif reply.verb == "PONG" and self._pongs:
            self._pongs.popleft()(None)
        elif reply.verb == "INFO":
            self.info = parse_info(reply.detail)
        elif reply.verb == "-ERR":
            self._take_complaint(complaint_of(reply))

    def _take_complaint(self, complaint: Complaint) -> None:
        if complaint.kind in (ComplaintKind.LOGIN, ComplaintKind.OTHER):
            raise NatsError(complaint.text)
        self._on_complaint(complaint)

    # --- life -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Notice a dead connection, which raises NatsError."""
        self._silent_ticks += 1
        if self._silent_ticks >= DEAD_TICKS:
            raise NatsError(f"the server was silent for {DEAD_SECONDS:g} seconds")
        if self._silent_ticks == PING_TICKS:
            self.confirm(lambda _: None)

    def close(self, error: NatsError) -> None:
        """The connection has ended: what waits for a confirmation gets the error."""
        while self._pongs:
            self._pongs.popleft()(error)
