"""Presence: which users are on which channels, over all workers of the cluster.

The truth is with the workers: each knows its own connections (attendance.py), reports changes to the others, and
answers their questions. Nothing is stored, so nothing can be left behind by a worker that dies. What a worker follows
of the others is in watches.py. Channels of namespaces without `presence` cost nothing.
"""

from contextlib import suppress
from typing import NoReturn

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.subscription import Router
from fanline.engine.cluster.members import Members
from fanline.engine.faults import Faults
from fanline.engine.namespaces import Namespaces
from fanline.engine.presence.attendance import Attendance
from fanline.engine.presence.delta import encode as encode_delta
from fanline.engine.presence.questions import SUBJECT, AskSnapshot, DeltaNumbers, decode_question, delta_subject, encode
from fanline.engine.presence.subscription import PresentSubscription
from fanline.engine.presence.watches import PresenceWatches
from fanline.engine.sending.outbox import Outbox
from fanline.engine.slices import Slices
from fanline.protocol.channels import is_pattern
from fanline.protocol.dialects.encoding import Encoding
from fanline.protocol.errors import ErrorCode, MessageError

REST_SECONDS = 0.1
"""Between two rounds of telling: what comes and goes meanwhile is one message for each channel."""


class Presence:
    """Of one worker."""

    def __init__(
        self,
        bus: Bus,
        router: Router,
        hub: Hub,
        members: Members,
        namespaces: Namespaces,
        faults: Faults,
        nursery: trio.Nursery,
        *,
        limit: int,
        timeout: float,
    ) -> None:
        self._bus = bus
        self._router = router
        self._namespaces = namespaces
        self._faults = faults
        self._worker = members.id
        self._attendance = Attendance(members.id, limit)
        self._news = trio.Event()  # a user has joined or left
        self.watches = PresenceWatches(
            bus, hub, members, self._attendance, faults, nursery, limit=limit, timeout=timeout
        )

    def covers(self, channel: str) -> bool:
        """Whether a channel has presence; a pattern has none."""
        return self._namespaces.of(channel).presence and not is_pattern(channel)

    def check_covers(self, channel: str) -> None:
        """MessageError(NOT_SUPPORTED) for a channel without presence."""
        if not self.covers(channel):
            raise MessageError(ErrorCode.NOT_SUPPORTED, f"{channel} has no presence")

    def subscription(self, channel: str, encoding: Encoding, outbox: Outbox) -> PresentSubscription:
        """A subscription to a channel with presence, which holds nothing yet."""
        return PresentSubscription(self._router, channel, encoding, outbox, self)

    # --- for subscriptions ---------------------------------------------------------------------------------------

    def enter(self, channel: str, user: str | None, username: str | None) -> None:
        """A connection has joined a channel."""
        self._attendance.enter(channel, user, username)
        self._news.set()

    def leave(self, channel: str, user: str | None) -> None:
        """A connection has left a channel of its own will."""
        self._attendance.leave(channel, user)
        self._news.set()

    def lose(self, channel: str, user: str | None) -> None:
        """A connection to a channel was lost: its user may be back soon."""
        self._attendance.lose(channel, user, trio.current_time())
        self._news.set()

    # --- in the background ---------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Answer the other workers, and tell them who comes and goes, forever."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(SUBJECT, self._answer)
        while True:
            with trio.move_on_at(self._attendance.next_expiry):
                await self._news.wait()
            self._news = trio.Event()
            self._attendance.expire(trio.current_time())
            await self._tell()
            await trio.sleep(REST_SECONDS)

    async def _tell(self) -> None:
        slices = Slices()
        for channel in self._attendance.dirty:
            delta = self._attendance.take(channel)
            if delta is not None:
                self._bus.tell(delta_subject(channel), encode_delta(delta))
                self.watches.hear_own(delta, channel)
            await slices.breathe()

    def _answer(self, payload: bytes, respond: Respond) -> None:
        """A worker, which may be this one, asks. Never raises."""
        try:
            question = decode_question(payload)
            if isinstance(question, AskSnapshot):
                if question.worker in (None, self._worker):
                    respond(encode_delta(self._attendance.snapshot(question.channel)))
            elif question is not None:
                respond(encode(DeltaNumbers(self._worker, self._attendance.numbers(question.channels))))
        except Exception:  # noqa: BLE001  # our own fault, and that of one question only
            self._faults.report("presence", "a worker cannot be answered")
