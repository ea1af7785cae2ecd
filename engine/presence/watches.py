"""The watches of one worker: channels whose presence it follows, for viewers and for queries.

To follow a channel, a worker listens to the deltas of all workers, and then asks each for a snapshot. From then on its
roster is true as fast as deltas travel, and queries are answered from it. What may be lost on the way is found by the
numbers of the deltas: by the next delta, and by a comparison now and then.
"""

import math
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.channels.hub import Hub
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.faults import Faults
from fanline.engine.presence.attendance import Attendance
from fanline.engine.presence.deaths import Deaths
from fanline.engine.presence.delta import PresenceDelta, decode
from fanline.engine.presence.questions import (
    SUBJECT,
    AskNumbers,
    AskSnapshot,
    DeltaNumbers,
    decode_numbers,
    delta_subject,
    encode,
)
from fanline.engine.presence.watch import PresenceWatch

ANSWER_SECONDS = 1.0
"""For how long the answers of the other workers are waited for: one that has just died has none."""
REST_SECONDS = 10.0
"""For how long a channel is followed after the last query."""
SILENT_SECONDS = 10.0
"""After an answer that did not come, for how long plain clients, which have asked for none, do not wait for any."""
LOOK_SECONDS = 1.0
COMPARE_SECONDS = 10.0
_AT_ONCE = 200  # channels in one comparison


class PresenceWatches:
    """`limit`: users above which a channel is large; `timeout`: seconds after which a query fails."""

    def __init__(
        self,
        bus: Bus,
        hub: Hub,
        members: Members,
        attendance: Attendance,
        faults: Faults,
        nursery: trio.Nursery,
        *,
        limit: int,
        timeout: float,
    ) -> None:
        self._bus = bus
        self._hub = hub
        self._members = members
        self._attendance = attendance
        self._faults = faults
        self._nursery = nursery
        self._limit = limit
        self._timeout = timeout
        self._watches: dict[str, PresenceWatch] = {}
        self._deaths = Deaths()
        self._compare_at = 0.0
        self._silent_until = -math.inf

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def all_answer(self) -> bool:
        """Whether no worker has failed to answer of late, as a dead one does until it is known to be dead."""
        return trio.current_time() >= self._silent_until

    # --- who needs one -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def following(self, name: str) -> AsyncIterator[PresenceWatch]:
        """A channel that is followed inside the block, and longer if others hold it. BusError on entering."""
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = PresenceWatch(name, self._limit)
            self._nursery.start_soon(self._begin, watch)
        self.hold(watch)
        try:
            await self._wait_ready(watch)
            yield watch
        finally:
            self.release(watch)

    def when_ready(self, name: str, take: Callable[[PresenceWatch], None]) -> None:
        """Have `take` called with the watch of a channel, now if it is followed, or once the other workers were
        asked; never if they cannot be asked.
        """
        watch = self._watches.get(name)
        if watch is not None and watch.ready.is_set() and watch.error is None:
            take(watch)
        else:
            self._nursery.start_soon(self._take_later, name, take)

    async def _take_later(self, name: str, take: Callable[[PresenceWatch], None]) -> None:
        with suppress(BusError):
            async with self.following(name) as watch:
                take(watch)

    def hold(self, watch: PresenceWatch) -> None:
        """Count one more interest in a channel that is followed."""
        watch.interest += 1

    def release(self, watch: PresenceWatch) -> None:
        """Count one interest less."""
        watch.interest -= 1
        if not watch.interest:
            watch.resting_since = trio.current_time()

    async def _wait_ready(self, watch: PresenceWatch) -> None:
        with trio.move_on_after(self._timeout) as patience:
            await watch.ready.wait()
        if patience.cancelled_caught or watch.error is not None:
            raise BusError(
                f"who is on {watch.name} cannot be found out now: {watch.error or 'the bus does not answer'}"
            )

    # --- the other workers ---------------------------------------------------------------------------------------

    async def _begin(self, watch: PresenceWatch) -> None:
        try:
            await self._bus.answer(delta_subject(watch.name), partial(self._hear, watch))
            watch.roster.take(self._attendance.snapshot(watch.name))
            await self._gather(watch)
        except BusError as error:
            watch.error = error
        except Exception as error:  # noqa: BLE001  # our own fault, and that of one channel only
            self._faults.report(watch.name, "its presence cannot be followed")
            watch.error = BusError(f"a fault of the server: {type(error).__name__}")
        if watch.error is not None:
            await self._end(watch)
        watch.ready.set()

    async def _gather(self, watch: PresenceWatch, worker: str | None = None) -> None:
        """Ask all workers, or one, for a snapshot. BusError."""
        count = len(self._members.live()) if worker is None else 1
        if worker is None and count == 1:
            return  # there is no other
        question = encode(AskSnapshot(watch.name, worker))
        snapshots = await self._bus.ask_all(SUBJECT, question, ANSWER_SECONDS, count)
        for payload in snapshots:
            self._take(watch, decode(payload))
        self._announce(watch)
        if len(snapshots) < count:
            self._silent_until = trio.current_time() + SILENT_SECONDS
            self.compare_soon()

    def _hear(self, watch: PresenceWatch, payload: bytes, _respond: Respond) -> None:
        """A worker tells a delta. Never raises."""
        try:
            self._take(watch, decode(payload))
            self._announce(watch)
        except Exception:  # noqa: BLE001  # our own fault, and that of one channel only
            self._faults.report(watch.name, "who has come or gone cannot be told")

    def hear_own(self, delta: PresenceDelta, name: str) -> None:
        """This worker publishes a delta, and applies it at once; when the bus returns it, nothing changes."""
        watch = self._watches.get(name)
        if watch is not None and watch.roster.take(delta):
            self._announce(watch)

    def _take(self, watch: PresenceWatch, delta: PresenceDelta | None) -> None:
        if delta is None or self._deaths.is_dead(delta.worker):
            return
        if not watch.roster.take(delta) and watch.ready.is_set():  # before that, its snapshot is on the way
            self._ask_again(watch, delta.worker)

    def _ask_again(self, watch: PresenceWatch, worker: str) -> None:
        if worker not in watch.asked:
            watch.asked.add(worker)
            self._nursery.start_soon(self._repair, watch, worker)

    async def _repair(self, watch: PresenceWatch, worker: str) -> None:
        try:
            await self._gather(watch, worker)
        except BusError:
            self.compare_soon()
        except Exception:  # noqa: BLE001  # our own fault, and that of one channel only
            self._faults.report(watch.name, "its presence cannot be repaired")
        finally:
            watch.asked.discard(worker)

    def _announce(self, watch: PresenceWatch) -> None:
        envelopes = watch.news.take(unix_ms(), trio.current_time())
        if envelopes and watch.groups:
            for envelope in envelopes:
                envelope.id = secrets.token_urlsafe(12)
            self._hub.announce(watch.groups, envelopes)

    # --- now and then --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look after the watches forever."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Remove dead workers, announce what had to wait, end watches that are not needed, and compare when it is time
        to.
        """
        known = {worker for watch in self._watches.values() for worker in watch.roster.workers}
        died, come = self._deaths.look(self._members.live(), known, trio.current_time())
        for watch in list(self._watches.values()):
            for worker in died:
                watch.roster.drop(worker)
            self._announce(watch)
            if not watch.interest and trio.current_time() - watch.resting_since >= REST_SECONDS:
                await self._end(watch)
        if come:
            self.compare_soon()
        if trio.current_time() >= self._compare_at:
            self._compare_at = trio.current_time() + COMPARE_SECONDS
            await self._compare()

    def compare_soon(self) -> None:
        """Something may have been lost: compare at the next look."""
        self._compare_at = 0.0

    async def _compare(self) -> None:
        """Find deltas that were lost and had no successor."""
        count = len(self._members.live())
        names = iter([name for name, watch in self._watches.items() if watch.ready.is_set()])
        while count > 1 and (some := list(islice(names, _AT_ONCE))):
            try:
                answers = await self._bus.ask_all(SUBJECT, encode(AskNumbers(some)), ANSWER_SECONDS, count)
            except BusError:
                self.compare_soon()
                return
            for payload in answers:
                answer = decode_numbers(payload)
                if answer is not None and answer.worker != self._members.id:
                    for watch in self._behind(answer, some):
                        self._ask_again(watch, answer.worker)

    def _behind(self, answer: DeltaNumbers, names: list[str]) -> Iterator[PresenceWatch]:
        """The watches that have missed something of a worker."""
        for name, number in zip(names, answer.numbers, strict=False):
            watch = self._watches.get(name)
            if watch is None:
                continue
            roster, worker = watch.roster, answer.worker
            if number > roster.number_of(worker) or (not number and roster.has_users_of(worker)):
                yield watch

    async def _end(self, watch: PresenceWatch) -> None:
        if self._watches.get(watch.name) is watch:
            del self._watches[watch.name]
            with suppress(BusError):
                await self._bus.answer(delta_subject(watch.name), None)
