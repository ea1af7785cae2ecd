"""How many connections a user may have over the whole cluster: places; each connection holds one.

The places of a user are one entry of a bucket, changed by compare-and-set, so that when many connections arrive at
once, on any workers, no more get in than there are places. A place names the worker that holds it; the next connection
that needs one takes over the places of workers that are no longer live.

Where the oldest connection is to be replaced, the newcomer first notes in the entry that it replaces one, so that no
other does so within REPLACE_SECONDS. Then it asks the worker that holds the oldest place to close the connection, and
only after its answer it takes the place. That worker gives the place back a little later, in case the newcomer has
ended.
"""

import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import NamedTuple, NoReturn, Protocol

import msgspec
import trio

from fanline.engine.access.identity import AccessError, Identity
from fanline.engine.bus.errors import BusError, ConflictError, NoListenerError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.bus.stored_entry import read_entry
from fanline.engine.cluster.members import Members
from fanline.engine.limits import Limit, LimitHits
from fanline.protocol.errors import CloseReason, ErrorCode
from fanline.protocol.nats.names import Bucket, name_key, system_subject

REPLACE_SECONDS = 60.0
"""The least time between two replacements of one user: two devices that always come back would replace each other."""
_TRIES = 60
_PAUSE_SECONDS = 0.02  # between two tries, redrawn each time, and longer after each
_RETRY_SECONDS = 1.0
_ANSWER_SECONDS = 2.0  # of the worker whose connection is replaced
_HANDOVER_SECONDS = 5.0  # for which a replaced connection's place is left to the newcomer
_log = logging.getLogger("fanline.access")


class PlaceRule(NamedTuple):
    """How many connections a user may have, as the route of a connection says."""

    most: int | None = None
    """None: any number, as far as the identity says nothing else."""
    replace: bool = False
    """Whether the oldest one makes room for a further one, which else is refused."""
    where: str = ""
    """The name under which the route counts, or its pattern: `most` counts the connections with the same one."""


class Place(NamedTuple):
    """One connection of a user."""

    key: str
    worker: str
    name: str


class TakenPlace(msgspec.Struct, frozen=True, array_like=True):
    """A place as the entry of its user has it."""

    worker: str
    name: str
    where: str = ""


class PlacesEntry(msgspec.Struct, omit_defaults=True):
    """The places of one user."""

    taken: list[TakenPlace] = []
    """The oldest first."""
    replaced: float = 0.0
    """When a connection was last replaced, in Unix seconds by the clock of the worker that did it."""


class Holder(Protocol):
    """What has a place: a session."""

    def close(self, reason: CloseReason) -> None:
        """End the connection."""
        ...


class _Want(NamedTuple):
    """A place that is to be taken, and the limits on it."""

    place: Place
    rule: PlaceRule
    most: int | None
    """Of the user's connections, wherever they are."""

    def is_full(self, taken: Collection[TakenPlace]) -> bool:
        here = sum(each.where == self.rule.where for each in taken)
        return here >= (self.rule.most or here + 1) or len(taken) >= (self.most or len(taken) + 1)

    def oldest(self, entry: PlacesEntry) -> TakenPlace:
        """The connection that makes room. AccessError if none does."""
        least = min(each for each in (self.rule.most, self.most) if each is not None)
        found = next((each for each in entry.taken if each.where == self.rule.where), None)
        if not self.rule.replace or found is None:
            raise AccessError(f"this user may have {least} connections, and has them", ErrorCode.LIMIT_EXCEEDED)
        if abs(time.time() - entry.replaced) < REPLACE_SECONDS:
            text = f"this user may have {least} connections, and one was replaced in the last {REPLACE_SECONDS:g} s"
            raise AccessError(text, ErrorCode.LIMIT_EXCEEDED)
        return found


class UserPlaces:
    """The places that the connections of one worker hold. `check`: called with an identity once it has waited for its
    place; AccessError if it no longer gets in.
    """

    def __init__(self, bus: Bus, members: Members, check: Callable[[Identity], None], hits: LimitHits) -> None:
        self._bus = bus
        self._members = members
        self._check = check
        self._hits = hits
        self._holders: dict[Place, Holder | None] = {}
        """Each place that is held here -> its connection; None while there is none yet."""
        self._given_back: dict[Place, float] = {}
        """Place -> when the entry of its user is to lose it, by Trio's clock."""
        self._work = trio.Event()
        self._listening = trio.Event()

    async def take(self, identity: Identity, rule: PlaceRule) -> Place | None:
        """A place for a connection of this identity; None if its connections are not counted.

        AccessError: LIMIT_EXCEEDED if all are taken, UNAVAILABLE if the bus cannot say, or that of `check`.
        """
        if identity.user is None or (identity.connections is None and rule.most is None):
            return None
        place = Place(f"user.{name_key(identity.user)}", self._members.id, secrets.token_hex(6))
        self._holders[place] = None  # before it is written: from then on another worker may ask to replace it
        with trio.CancelScope(shield=True):  # otherwise no worker would know that the place is taken
            try:
                await self._take(_Want(place, rule, identity.connections))
            except AccessError as error:
                self._holders.pop(place, None)
                self._hits.hit(Limit.USER_CONNECTIONS, error)
                raise
            except BusError as error:  # it may have been taken
                self.give_back(place)
                raise AccessError(f"connections cannot be counted now: {error}", ErrorCode.UNAVAILABLE) from None
        try:
            self._check(identity)
        except AccessError:
            self.give_back(place)
            raise
        return place

    def hold(self, place: Place | None, holder: Holder) -> None:
        """The connection that has the place is open now. It is closed at once if it has been replaced already."""
        if place is None:
            return
        if place in self._holders:
            self._holders[place] = holder
        else:
            holder.close(CloseReason.REPLACED)

    def give_back(self, place: Place | None) -> None:
        """The connection has ended: `run` gives its place back soon, if it has one."""
        if place is not None:
            self._holders.pop(place, None)
            self._given_back.setdefault(place, trio.current_time())
            self._work.set()

    async def run(self) -> NoReturn:
        """Close connections that are replaced, and give places back, forever. While the bus is away they stay
        taken.
        """
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(system_subject("worker", self._members.id, "replace"), self._answer)
        self._listening.set()
        while True:
            with trio.move_on_after(self._pause()):
                await self._work.wait()
            self._work = trio.Event()
            await self._give_back_due()

    # --- taking ---------------------------------------------------------------------------------------------------

    async def _take(self, want: _Want) -> None:
        await self._members.wait_signed()
        await self._listening.wait()
        replaced: TakenPlace | None = None
        for number in range(_TRIES):
            entry, revision = await self._read(want.place.key)
            if replaced in entry.taken:
                entry.taken.remove(replaced)
            if want.is_full(entry.taken):
                entry.taken = await self._living(entry.taken)
            if not want.is_full(entry.taken):
                entry.taken.append(TakenPlace(want.place.worker, want.place.name, want.rule.where))
                if await self._write(want.place.key, entry, revision):
                    return
            else:
                oldest = want.oldest(entry)
                entry.replaced = time.time()
                if await self._write(want.place.key, entry, revision):
                    await self._close(want.place.key, oldest)
                    replaced = oldest
                    continue
            await trio.sleep(random.uniform(0, _PAUSE_SECONDS * (1 + number / 8)))  # noqa: S311  # no secret
        raise BusError("too many of this user come at once")

    async def _close(self, key: str, oldest: TakenPlace) -> None:
        """Have a connection closed, whose place is then free. BusError if it may still be open."""
        subject = system_subject("worker", oldest.worker, "replace")
        try:
            await self._bus.ask(subject, f"{key} {oldest.name}".encode(), _ANSWER_SECONDS)
        except NoListenerError:
            if await self._living([oldest]):  # it cannot be reached, but its clients may still be connected
                raise

    # --- being replaced -------------------------------------------------------------------------------------------

    def _answer(self, payload: bytes, respond: Respond) -> None:
        """Close the connection that has this place, if it is still there."""
        key, _, name = payload.decode(errors="replace").partition(" ")
        place = Place(key, self._members.id, name)
        if place in self._holders:
            self._given_back[place] = trio.current_time() + _HANDOVER_SECONDS
            self._work.set()
            holder = self._holders.pop(place)
            if holder is not None:
                holder.close(CloseReason.REPLACED)
        respond(b"")

    # --- giving back ----------------------------------------------------------------------------------------------

    def _pause(self) -> float:
        """Seconds until something is to be given back."""
        return max(0.0, min(self._given_back.values(), default=float("inf")) - trio.current_time())

    async def _give_back_due(self) -> None:
        now = trio.current_time()
        for place in [place for place, due in self._given_back.items() if due <= now]:
            try:
                await self._release(place)
            except BusError as error:
                _log.debug("a place cannot be given back yet: %s", error)
                self._given_back[place] = now + _RETRY_SECONDS
            else:
                del self._given_back[place]

    async def _release(self, place: Place) -> None:
        for _ in range(_TRIES):
            entry, revision = await self._read(place.key)
            rest = [each for each in entry.taken if (each.worker, each.name) != (place.worker, place.name)]
            if len(rest) == len(entry.taken):
                return
            entry.taken = rest
            if await self._write(place.key, entry, revision):
                return
            await trio.sleep(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311  # no secret
        raise BusError("others change the entry all the time")

    async def _living(self, taken: Iterable[TakenPlace]) -> list[TakenPlace]:
        """The places of live workers. A worker that has just started is not known yet, so the bus is asked."""
        live = await self._members.look()
        return [each for each in taken if each.worker in live]

    # --- the entry ------------------------------------------------------------------------------------------------

    async def _read(self, key: str) -> tuple[PlacesEntry, int]:
        stored = await self._bus.kv_get(Bucket.PLACES, key)
        if stored is None:
            return PlacesEntry(), 0
        entry = read_entry(PlacesEntry, stored.value, f"the entry {key} of connections") if stored.value else None
        return entry or PlacesEntry(), stored.revision

    async def _write(self, key: str, entry: PlacesEntry, revision: int) -> bool:
        try:
            await self._bus.kv_update(Bucket.PLACES, key, msgspec.json.encode(entry), revision)
        except ConflictError:
            return False
        return True
