"""What a worker wants to hear: each subject with its subscription, and whether the server has it. No I/O."""

import trio

from fanline.engine.bus.interface import BusError
from fanline.engine.bus.nats.client import NatsClient
from fanline.engine.bus.nats.confirmation import Confirmation
from fanline.protocol.nats.connection import Sink
from fanline.protocol.nats.replies import ComplaintKind

_DENIED = ComplaintKind.SUBSCRIBE_DENIED


class _Wanted:
    """One subject: the number of its subscription, and what confirms that; None if there was no connection yet."""

    __slots__ = ("confirmation", "sid")

    def __init__(self, sid: int, confirmation: Confirmation | None) -> None:
        self.sid = sid
        self.confirmation = confirmation


class SubjectInterest:
    """`want` and `drop` are idempotent, and in effect at the server soon after; `wait` waits for that."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client
        self._wanted: dict[str, _Wanted] = {}
        self._renewed = trio.Event()

    def want(self, subject: str, sink: Sink) -> None:
        if subject not in self._wanted:
            sid = self._client.subscribe(subject, sink)
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
            if confirmation.is_done and confirmation.denial(_DENIED, subject) is None:
                return
            try:
                await confirmation.wait_permitted(_DENIED, subject)
            except BusError:
                if confirmation.is_done:
                    raise
                if wanted.confirmation is confirmation:
                    await self._renewed.wait()
