"""Reading what producers publish: as it goes to clients, or refused, counted and logged."""

import logging
from collections.abc import Callable, Sequence

from fanline.engine.bus.stored import Stored, StreamPosition
from fanline.engine.channels.durable.log import Readable
from fanline.engine.clock import unix_ms_of
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults, fault_gap
from fanline.engine.log_pace import LogPace
from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.slices import SMALL_BYTES, Turns
from fanline.engine.tasks.fold import check_task_message
from fanline.engine.tasks.monitor.stored.table import TABLE_CHANNEL
from fanline.protocol.envelope import Envelope, from_producer
from fanline.protocol.errors import ErrorCode, MessageError

_log = logging.getLogger("fanline.hub")


class MessageReader:
    """What the bus knows overrides what the producer claims: the subject names the channel, the stream the offset."""

    def __init__(
        self,
        namespaces: Namespaces,
        counters: Counters,
        faults: Faults,
        clock_ms: Callable[[], int],
        turns: Turns | None = None,
    ) -> None:
        self._namespaces = namespaces
        self._counters = counters
        self._faults = faults
        self._clock_ms = clock_ms
        self._turns = turns or Turns()
        self._pace = LogPace(1.0)

    def read(
        self, channel: str, namespace: Namespace, payload: bytes, position: StreamPosition | None
    ) -> Envelope | None:
        """A message as it goes to clients; None, counted and logged, if it is none. If we fail to read it, the `gap` in
        its place.

        `position`: that of a stored message, whose time stands where the producer gave none; None: the present time.
        """
        try:
            envelope = from_producer(payload)
            if envelope.priority is None and namespace.priority >= 0:
                envelope.priority = namespace.priority
            if envelope.ttl is None and namespace.ttl:
                envelope.ttl = namespace.ttl
            _check(channel, namespace, envelope, signed=position is not None and position.signed)
            if envelope.time is None:
                envelope.time = self._clock_ms() if position is None else unix_ms_of(position.time)
        except MessageError as error:
            self.refuse(channel, error)
            return None
        except Exception:  # noqa: BLE001  # our own fault, which every worker would meet
            self._faults.report(channel, "a message cannot be read")
            return fault_gap(channel, None if position is None else position.offset)
        envelope.channel = channel
        envelope.offset = envelope.previous = envelope.epoch = None
        return envelope

    def read_stored(self, stored: Stored) -> Envelope | None:
        """The same of a message that was read from its stream."""
        namespace = self._namespaces.of(stored.channel)
        return self.read(stored.channel, namespace, stored.payload, stored.position)

    async def read_page(self, page: Sequence[Stored]) -> list[Readable]:
        """The same of many messages: at once if they are small, otherwise in slices, by turns."""
        readable = ((self.read_stored(stored), stored.position) for stored in page)
        if sum(len(stored.payload) for stored in page) <= SMALL_BYTES:
            return list(readable)
        return await self._turns.all(readable)

    def refuse(self, channel: str, error: MessageError) -> None:
        """Count a producer's mistake; at most one log line a second, because it may recur very often."""
        self._counters.messages_bad += 1
        if self._pace.allows():
            total = self._counters.messages_bad
            _log.warning("dropped a message on %s that a producer published (%d so far): %s", channel, total, error)


def _check(channel: str, namespace: Namespace, envelope: Envelope, *, signed: bool) -> None:
    """MessageError if the publisher of a message may not publish it. `signed`: it was the engine."""
    if namespace.tasks:
        check_task_message(envelope, signed=signed)
    elif channel == TABLE_CHANNEL and not signed:
        raise MessageError(ErrorCode.PERMISSION_DENIED, "only the engine publishes there, and signs it")
