"""How many connections a user may have over the whole cluster: places, of which each connection holds one.

The places of a user are one entry of a bucket, changed by compare-and-set, so that of many connections that come at
once, to any workers, no more get in than there are places. A place names the worker that holds it; those of workers
that are no longer live are taken over by whoever needs one.
"""

import logging
import random
import secrets
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

import msgspec
import trio

from fanline.engine.access.identity import AccessError, Identity
from fanline.engine.bus.interface import Bus, BusError, ConflictError
from fanline.engine.cluster.members import Members
from fanline.engine.stored_entry import read_entry
from fanline.protocol.errors import ErrorCode
from fanline.protocol.nats.names import Bucket, name_key

_TRIES = 60
_PAUSE_SECONDS = 0.02  # between two tries, drawn anew each time, and longer after each
_RETRY_SECONDS = 1.0
_log = logging.getLogger("fanline.access")


class PlaceRule(NamedTuple):
    """How many connections a user may have, as the route of a connection says."""

    most: int | None = None
    """None: any number, as far as the identity says nothing else."""
    replace: bool = False
    """Whether a further one takes the place of the oldest."""
    where: str = ""
    """The route whose connections are counted; "" for all that are not counted by route."""


class Place(NamedTuple):
    """One connection of a user."""

    key: str
    worker: str
    name: str


class PlacesEntry(msgspec.Struct):
    """The places of one user that are taken."""

    taken: list[tuple[str, str]] = []
    """(worker id, name of the connection), the oldest first."""


class UserPlaces:
    """The places that the connections of one worker hold. `check`: called with an identity once it has waited for its
    place; AccessError if it no longer gets in.
    """

    def __init__(self, bus: Bus, members: Members, check: Callable[[Identity], None]) -> None:
        self._bus = bus
        self._members = members
        self._check = check
        self._given_back: dict[Place, None] = {}
        self._work = trio.Event()

    async def take(self, identity: Identity, rule: PlaceRule) -> Place | None:
        """A place for a connection of this identity; None if its connections are not counted. A number of the identity
        is one for all its connections, and goes before that of the rule.

        AccessError: LIMIT_EXCEEDED if all are taken, UNAVAILABLE if the bus cannot say, or that of `check`.
        """
        most, where = (rule.most, rule.where) if identity.connections is None else (identity.connections, "")
        if identity.user is None or most is None:
            return None
        place = Place(_key(identity.user, where), self._members.id, secrets.token_hex(6))
        with trio.CancelScope(shield=True):  # or nobody would know that the place was taken
            try:
                await self._take(place, most)
            except BusError as error:  # it may have been taken
                self.give_back(place)
                raise AccessError(f"connections cannot be counted now: {error}", ErrorCode.UNAVAILABLE) from None
        try:
            self._check(identity)
        except AccessError:
            self.give_back(place)
            raise
        return place

    async def _take(self, place: Place, most: int) -> None:
        await self._members.wait_signed()
        for number in range(_TRIES):
            if await self._try(place, most):
                return
            await trio.sleep(random.uniform(0, _PAUSE_SECONDS * (1 + number / 8)))  # noqa: S311  # no secret
        raise BusError("too many of this user come at once")

    def give_back(self, place: Place | None) -> None:
        """The connection has ended: `run` gives its place back soon, if it has one."""
        if place is not None:
            self._given_back[place] = None
            self._work.set()

    async def run(self) -> NoReturn:
        """Give places back for ever. While the bus is away they stay taken."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            for place in list(self._given_back):
                try:
                    await self._release(place)
                except BusError as error:
                    _log.debug("a place cannot be given back yet: %s", error)
                    await trio.sleep(_RETRY_SECONDS)
                    self._work.set()
                    break
                del self._given_back[place]

    async def _try(self, place: Place, most: int) -> bool:
        """Take a place; False if the entry was changed meanwhile. BusError; AccessError if all are taken."""
        taken, revision = await self._read(place.key)
        if len(taken) >= most:
            taken = await self._living(taken)
        if len(taken) >= most:
            raise AccessError(f"this user may have {most} connections, and has them", ErrorCode.LIMIT_EXCEEDED)
        return await self._write(place.key, [*taken, (place.worker, place.name)], revision)

    async def _release(self, place: Place) -> None:
        for _ in range(_TRIES):
            taken, revision = await self._read(place.key)
            rest = [each for each in taken if each != (place.worker, place.name)]
            if len(rest) == len(taken) or await self._write(place.key, rest, revision):
                return
            await trio.sleep(random.uniform(0, _PAUSE_SECONDS))  # noqa: S311  # no secret
        raise BusError("others change the entry all the time")

    async def _living(self, taken: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of live workers. One that has just come is not known yet, so the bus is asked."""
        live = await self._members.look()
        return [each for each in taken if each[0] in live]

    async def _read(self, key: str) -> tuple[list[tuple[str, str]], int]:
        entry = await self._bus.kv_get(Bucket.PLACES, key)
        if entry is None:
            return [], 0
        found = read_entry(PlacesEntry, entry.value, f"the entry {key} of connections") if entry.value else None
        return ([] if found is None else found.taken), entry.revision

    async def _write(self, key: str, taken: Iterable[tuple[str, str]], revision: int) -> bool:
        try:
            await self._bus.kv_update(Bucket.PLACES, key, msgspec.json.encode(PlacesEntry(list(taken))), revision)
        except ConflictError:
            return False
        return True


def _key(user: str, where: str) -> str:
    return f"user.{name_key(user)}.{name_key(where)}" if where else f"user.{name_key(user)}"
