"""Who is live: every worker signs in every second, and reads who else has.

A worker's entry in the bucket WORKERS expires EXPIRY_SECONDS after its last sign of life, and is removed when the
worker ends; no other worker writes it, so no late write can harm. While the bus is unreachable no worker can sign in,
so no worker is given up before the bus has been back for that long.

That an entry exists proves nothing: entries that have expired can come back when nats-server is killed, and then stay.
A sign of life is a revision that has grown since the last read. A worker is dead after SILENT_LOOKS reads without one,
and stays dead until there is one, whatever the bucket holds.

A process that is no worker also hears of each entry when it is stored, and so knows of a worker that has just come
without asking. Who is dead is decided by looks alone, except that a worker says so itself when it ends.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from typing import NoReturn

import msgspec
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.stored_entry import read_entry
from fanline.protocol.management.answers import server_name
from fanline.protocol.nats.names import Bucket

SIGN_SECONDS = 1.0
EXPIRY_SECONDS = 3.0
SILENT_LOOKS = 6
"""Looks are SIGN_SECONDS apart, and only those at which the bus answers count: twice the expiry."""
_LEAVE_SECONDS = 0.5
_log = logging.getLogger("fanline.members")


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of itself: the value of its entry, as JSON. Unknown keys are ignored."""

    host: str = ""
    pid: int = 0
    name: str = ""
    """As in the logs: `worker-0`."""
    started: int = 0
    """Unix ms, by the worker's own clock."""
    server: str = ""
    """That of its supervisor."""
    died: str = ""
    """How the worker before it in its slot died, as its supervisor saw it: `signal 9`. Empty: there was none, or it had
    been told to end.
    """


class _Sighting(msgspec.Struct):
    member: Member
    since: float
    """By Trio's clock: when it was first found signed in."""
    silent: int = 0
    """Looks since its last sign of life."""
    signs: int = 0
    """Of life, as far as this process has seen any. The first one may be an entry that came back."""


class Members:
    """The live workers of the cluster, this one included. `run` keeps it up to date."""

    def __init__(self, bus: Bus, name: str = "", died: str = "") -> None:
        """`name`, `died`: as in Member."""
        self._bus = bus
        self.id = f"{os.getpid()}-{secrets.token_hex(8)}"
        """This worker's, for one life of the process."""
        host = socket.gethostname()
        server = server_name(host, os.getppid())
        self.own = Member(host, os.getpid(), name, time.time_ns() // 1_000_000, server, died)
        self._others: dict[str, _Sighting] = {}
        self._signed = trio.Event()
        self._revisions: dict[str, int] = {}
        self._newest = 0
        """At the last look: the revision of each entry, and the highest one."""
        self._sound_since: float | None = None  # since when every look has succeeded
        self._heard: dict[str, float] = {}  # worker -> when it was last heard to sign in, by Trio's clock
        self._hears_all = False  # whether a look has succeeded since changes were last missed

    def live(self) -> dict[str, Member]:
        """Worker id -> what it says of itself; this worker is always among them."""
        return {self.id: self.own} | self.others

    @property
    def others(self) -> dict[str, Member]:
        """The same without this one."""
        return {worker: seen.member for worker, seen in self._others.items()}

    @property
    def proven(self) -> dict[str, Member]:
        """Those of the others that have signed in while this process was looking."""
        return {worker: seen.member for worker, seen in self._others.items() if seen.signs > 1}

    def steady(self, seconds: float) -> set[str]:
        """The ids of this worker and of those that have been live for at least `seconds` seconds."""
        latest = trio.current_time() - seconds
        return {self.id} | {worker for worker, seen in self._others.items() if seen.since <= latest}

    @property
    def known(self) -> bool:
        """Whether the bus has answered since it was last away, so that `live` can be relied upon."""
        return self._sound_since is not None

    async def wait_signed(self) -> None:
        """Wait until other workers can see this one."""
        await self._signed.wait()

    async def look(self) -> Collection[str]:
        """The ids of the live workers, also of those that have come since the last look; they are asked for unless they
        are heard. BusError.
        """
        if self._hears_all and self._bus.kv_is_watched(Bucket.WORKERS):
            return {*self.live(), *self._heard_lately()}
        found = await self._bus.kv_entries(Bucket.WORKERS)
        return {*self.live(), *(worker for worker, entry in found.items() if self._is_sign(worker, entry.revision))}

    async def run(self) -> None:
        """Sign in and look, forever; sign out when cancelled."""
        try:
            while True:
                try:
                    await self._sign(msgspec.json.encode(self.own), EXPIRY_SECONDS)
                    self._signed.set()
                    await self._look()
                except BusError as error:
                    self._sound_since = None
                    _log.debug("the bus: %s", error)
                await trio.sleep(SIGN_SECONDS)
        finally:
            with trio.move_on_after(_LEAVE_SECONDS, shield=True):
                await self._leave()

    async def watch(self) -> NoReturn:
        """Look and hear without signing in, forever: for a process that is no worker."""
        with suppress(BusError):  # then it hears once the bus is back
            await self._bus.kv_watch(Bucket.WORKERS, self)
        while True:
            try:
                await self._look()
            except BusError as error:
                self._sound_since = None
                _log.debug("the bus: %s", error)
            await trio.sleep(SIGN_SECONDS)

    def changed(self, key: str, value: bytes) -> None:
        """For the bus: a worker has signed in, or out."""
        if value:
            self._heard[key] = trio.current_time()
        else:
            self._heard.pop(key, None)
            self._others.pop(key, None)

    def interrupted(self) -> None:
        """For the bus: workers may have come unheard."""
        self._hears_all = False

    def _heard_lately(self) -> list[str]:
        latest = trio.current_time() - EXPIRY_SECONDS
        return [worker for worker, moment in self._heard.items() if moment > latest]

    async def _sign(self, value: bytes, seconds: float) -> None:
        await self._bus.kv_put(Bucket.WORKERS, self.id, value, seconds)

    async def _leave(self) -> None:
        try:
            await self._sign(b"", 1)
        except BusError as error:
            _log.debug("not signed out: %s", error)

    async def _look(self) -> None:
        is_watched = self._bus.kv_is_watched(Bucket.WORKERS)
        found = await self._bus.kv_entries(Bucket.WORKERS)
        now = trio.current_time()
        self._hears_all = is_watched
        self._heard = {worker: self._heard[worker] for worker in self._heard_lately()}
        if self._sound_since is None:
            self._sound_since = now
        for worker, entry in found.items():
            if worker != self.id and self._is_sign(worker, entry.revision):
                self._hear(worker, entry.value, now)
        self._revisions = {worker: entry.revision for worker, entry in found.items()}
        self._newest = max(self._revisions.values(), default=0)
        sound = now - self._sound_since >= EXPIRY_SECONDS
        for worker, seen in list(self._others.items()):
            seen.silent += 1
            if seen.silent >= SILENT_LOOKS or (worker not in found and sound):
                del self._others[worker]

    def _is_sign(self, worker: str, revision: int) -> bool:
        """Whether an entry was written since the last look."""
        return revision > self._revisions.get(worker, self._newest)

    def _hear(self, worker: str, value: bytes, now: float) -> None:
        """A sign of life."""
        if worker not in self._others:
            self._others[worker] = _Sighting(_member_of(worker, value), now)
        seen = self._others[worker]
        seen.silent = -1  # before this look is counted
        seen.signs += 1


def _member_of(worker: str, value: bytes) -> Member:
    return read_entry(Member, value, f"the entry of worker {worker}") or Member()
