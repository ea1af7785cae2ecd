"""How many users are connected to the whole system.

Each worker counts its own when it is asked. Users may be connected to several workers, so what workers tell is not a
number but digests of the names; of very many users a sample, from which the number is estimated.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec
import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.cluster.members import Members
from fanline.engine.faults import Faults
from fanline.engine.presence.delta import DIGEST_BYTES, digest, split_digests
from fanline.engine.slices import Slices
from fanline.protocol.messages.answers import PresenceData
from fanline.protocol.nats.names import system_subject

SAMPLE = 32_768
"""Digests that a worker tells at most: those with the lowest values. With more users, the number is about 1 % off."""
SUBJECT = system_subject("online")
ANSWER_SECONDS = 1.0
FRESH_SECONDS = 1.0
"""For how long an answer is repeated."""
_LOOK_EVERY = 1000  # connections between two looks at the clock
_HIGHEST = 1 << (8 * DIGEST_BYTES)


class OnlineUsers(msgspec.Struct, frozen=True):
    """What one worker tells, as JSON."""

    connections: int
    anonymous: int
    digests: bytes
    """Of the users, in order."""
    complete: bool
    """Whether these are all users."""


_users = msgspec.json.Decoder(OnlineUsers)


def decode_users(payload: bytes) -> OnlineUsers | None:
    """None for an answer that cannot be read, as of a later version."""
    try:
        return _users.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def sample(connections: int, anonymous: int, digests: Iterable[bytes], most: int = SAMPLE) -> OnlineUsers:
    """What a worker with these users reports."""
    ordered = sorted(digests)
    return OnlineUsers(connections, anonymous, b"".join(ordered[:most]), len(ordered) <= most)


def count_users(told: Sequence[OnlineUsers]) -> int:
    """How many different users there are: exactly, if all workers have reported all of them."""
    users = {each for worker in told for each in split_digests(worker.digests)}
    bounds = [worker.digests[-DIGEST_BYTES:] for worker in told if not worker.complete]
    if not bounds:
        return len(users)
    # Up to the lowest bound, the digests of all workers are known; they are spread evenly over all values.
    bound = min(bounds)
    return round(sum(each <= bound for each in users) * _HIGHEST / (int.from_bytes(bound, "big") + 1))


class OnlineCounter:
    """Of one worker. `users`: the user of each of its connections, None for a client without a user name."""

    def __init__(
        self,
        bus: Bus,
        members: Members,
        faults: Faults,
        nursery: trio.Nursery,
        users: Callable[[], Iterable[str | None]],
    ) -> None:
        self._bus = bus
        self._members = members
        self._faults = faults
        self._nursery = nursery
        self._users = users
        self._asking = trio.Lock()
        self._counted: PresenceData | None = None
        self._stale_at = 0.0

    async def count(self) -> PresenceData:
        """Users and connections of the whole system; a worker that does not answer in time is left out. BusError."""
        async with self._asking:
            if self._counted is None or trio.current_time() >= self._stale_at:
                answers = await self._bus.ask_all(SUBJECT, b"", ANSWER_SECONDS, len(self._members.live()))
                told = [each for each in map(decode_users, answers) if each is not None]
                connections, anonymous = sum(each.connections for each in told), sum(each.anonymous for each in told)
                self._counted = PresenceData(count_users(told), connections, anonymous)
                self._stale_at = trio.current_time() + FRESH_SECONDS
            return self._counted

    async def run(self) -> None:
        """Answer the other workers, and this one, from now on."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(SUBJECT, self._answer)
        await trio.sleep_forever()

    def _answer(self, _payload: bytes, respond: Respond) -> None:
        self._nursery.start_soon(self._respond, respond)

    async def _respond(self, respond: Respond) -> None:
        try:
            respond(msgspec.json.encode(await self._own()))
        except Exception:  # noqa: BLE001  # our own fault, and that of one answer only
            self._faults.report("presence", "the users of this worker cannot be counted")

    async def _own(self) -> OnlineUsers:
        digests, connections, anonymous, slices = set[bytes](), 0, 0, Slices()
        for user in self._users():
            connections += 1
            if user is None:
                anonymous += 1
            else:
                digests.add(digest(user))
            if connections % _LOOK_EVERY == 0:
                await slices.breathe()
        return sample(connections, anonymous, digests)
