"""What a worker wants to receive: each subject with its subscription, and whether the server has it. No I/O."""

from collections.abc import Mapping

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.client.client import NatsClient
from fanline.engine.bus.nats.client.confirmation import Confirmation
from fanline.protocol.nats.connection import Sink
from fanline.protocol.nats.parser import NatsMessage
from fanline.protocol.nats.replies import ComplaintKind

_DENIED = ComplaintKind.SUBSCRIBE_DENIED


class _Wanted:
    """One subject: the number of its subscription, and what confirms that; None if there was no connection yet."""

    __slots__ = ("confirmation", "sid")

    def __init__(self, sid: int, confirmation: Confirmation | None) -> None:
        self.sid = sid
        self.confirmation = confirmation


class SubjectInterest:
    """`want` and `drop` are idempotent, and in effect at the server soon after; `wait` waits for that. Of several sinks
    that a subject was wanted with, the last one is called.
    """

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._wanted: dict[str, _Wanted] = {}
        self._renewed = trio.Event()

    def want(self, subject: str, sink: Sink, queue: str = "") -> None:
        wanted = self._wanted.get(subject)
        if wanted is not None:
            self._client.redirect(wanted.sid, sink)
        else:
            sid = self._client.subscribe(subject, sink, queue)
            self._wanted[subject] = _Wanted(sid, self._client.confirmation() if self._client.connected else None)

    def drop(self, subject: str) -> None:
        wanted = self._wanted.pop(subject, None)
        if wanted is not None:
            self._client.unsubscribe(wanted.sid)

    def renew(self) -> None:
        """There is another connection, on which all subscriptions have been made again."""
        confirmation = self._client.confirmation()
        for wanted in self._wanted.values():
            wanted.confirmation = confirmation
        self._renewed.set()
        self._renewed = trio.Event()

    def is_held(self, subject: str) -> bool:
        """Whether the server is known to have the subscription."""
        wanted = self._wanted.get(subject)
        confirmation = None if wanted is None or not self._client.connected else wanted.confirmation
        return confirmation is not None and confirmation.is_done and confirmation.denial(_DENIED, subject) is None

    async def wait(self, subject: str) -> None:
        """Wait until the server has the subscription, through an outage if one begins meanwhile; returns without a
        checkpoint if the server is known to have it. BusError if it denies it, or at once if there is no connection.
        """
        if not self._client.connected:
            raise BusError("NATS is not connected; try again")
        while (wanted := self._wanted.get(subject)) is not None:
            confirmation = wanted.confirmation
            if confirmation is None:
                raise BusError("NATS is not connected; try again")
            if self.is_held(subject):
                return
            try:
                await confirmation.wait_permitted(_DENIED, subject)
            except BusError:
                if confirmation.is_done:
                    raise
                if wanted.confirmation is confirmation:
                    await self._renewed.wait()


class NamespaceInterest:
    """Reasons to receive all channels of a namespace. One subscription serves all of them, each with its own sink."""

    def __init__(self, interest: SubjectInterest) -> None:
        self._interest = interest
        self._sinks: dict[str, dict[str, Sink]] = {}  # subject -> reason -> sink

    def want(self, subject: str, reason: str, sink: Sink) -> None:
        self._sinks.setdefault(subject, {})[reason] = sink
        self._interest.want(subject, _one_of(self._sinks[subject]))

    def drop(self, subject: str, reason: str) -> None:
        sinks = self._sinks.get(subject, {})
        sinks.pop(reason, None)
        if sinks:
            self._interest.want(subject, _one_of(sinks))
        else:
            self._sinks.pop(subject, None)
            self._interest.drop(subject)


def _one_of(sinks: Mapping[str, Sink]) -> Sink:
    """One sink that calls these."""
    if len(sinks) == 1:
        return next(iter(sinks.values()))  # without a detour: the task monitor gets very many messages
    each = tuple(sinks.values())

    def take(message: NatsMessage) -> None:
        for sink in each:
            sink(message)

    return take
