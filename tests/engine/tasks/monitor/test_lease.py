"""One worker at a time holds a lease, whichever of them sleeps, dies or releases it."""

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.tasks.monitor.lease import EXPIRY_SECONDS, RENEW_SECONDS, Lease, LeaseBoard, ReadPosition, value_of
from fanline.protocol.nats.names import Bucket

DUTY = "duties.one"


class Candidate:
    """A worker that would like to have the lease, and looks at it as the task monitor does."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.bus = MemoryBus(broker)
        self.name = name
        self.lease = Lease(self.bus, DUTY, name)
        self._board = LeaseBoard()

    async def take(self) -> bool:
        """Take it if it is free or its holder is dead; BusError."""
        try:
            self._board.see(await self.bus.kv_entries(Bucket.LEASES, "duties"))
        except BusError:
            self._board.forget()
            raise
        if self._board.holder(DUTY) not in ("", self.name) and not self._board.is_expired(DUTY):
            return False
        return await self.lease.take(self._board.entry(DUTY))


Pair = tuple[Candidate, Candidate, MemoryBroker]


@pytest.fixture
def pair() -> Pair:
    broker = MemoryBroker()
    return Candidate(broker, "one"), Candidate(broker, "other"), broker


async def test_only_one_of_several_workers_gets_it(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    assert await one.take()
    assert not await other.take()
    assert await one.take()  # its own
    assert not await other.lease.renew()
    assert (one.lease.valid, other.lease.valid) == (True, False)


async def test_of_two_workers_that_find_it_free_at_once_one_gets_it(autojump_clock: MockClock, pair: Pair) -> None:
    got: list[bool] = []

    async def take(candidate: Candidate) -> None:
        got.append(await candidate.take())

    async with trio.open_nursery() as nursery:
        for candidate in pair[:2]:
            nursery.start_soon(take, candidate)
    assert sorted(got) == [False, True]


async def test_a_renewed_lease_is_never_free(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    await one.take()
    for _ in range(20):
        assert await one.lease.renew()
        assert one.lease.valid
        assert not await other.take()
        await trio.sleep(RENEW_SECONDS)


async def test_a_lease_that_is_not_renewed_goes_to_another_worker_when_its_holder_no_longer_relies_on_it(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other, _ = pair
    await one.take()
    one.lease.positions["task"] = ReadPosition("e", 7)
    await one.lease.renew()
    one.lease.positions["task"] = ReadPosition("e", 8)  # not stored before it died
    started = trio.current_time()
    while not await other.take():
        assert trio.current_time() - started < EXPIRY_SECONDS + 0.5
        await trio.sleep(0.1)
    assert not one.lease.valid
    assert other.lease.positions == {"task": ReadPosition("e", 7)}
    assert not await one.lease.renew()
    assert not await one.take()


async def test_its_holder_no_longer_relies_on_a_lease_some_time_before_it_is_free(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other, _ = pair
    await one.take()
    one.lease.check()
    assert not await other.take()
    await trio.sleep(EXPIRY_SECONDS - 0.4)
    assert not one.lease.valid
    with pytest.raises(BusError, match="another worker may hold the lease"):
        one.lease.check()
    assert not await other.take()


async def test_a_released_lease_is_free_at_once_with_its_positions(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    await one.take()
    one.lease.positions["task"] = ReadPosition("e", 9)
    await one.lease.release()
    assert not one.lease.valid
    assert await other.take()
    assert other.lease.positions == {"task": ReadPosition("e", 9)}
    await one.lease.release()  # no longer its own
    assert await other.lease.renew()


async def test_a_renewal_that_was_made_but_not_confirmed_is_found_to_be_its_own(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other, broker = pair
    await one.take()
    found = broker.find(Bucket.LEASES, DUTY)
    assert found is not None
    broker.write(Bucket.LEASES, DUTY, found.value)  # what the lost confirmation was about
    assert await one.lease.renew()
    assert not await other.take()


async def test_an_outage_of_the_bus_is_not_taken_for_silence_of_the_holder(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other, broker = pair
    await one.take()
    assert not await other.take()
    broker.available = False
    for _ in range(10):
        with pytest.raises(BusError):
            await other.take()
        await trio.sleep(1)
    broker.available = True
    assert not await other.take()
    assert await one.lease.renew()
    assert not await other.take()


async def test_an_entry_that_cannot_be_read_is_a_free_lease(autojump_clock: MockClock, pair: Pair) -> None:
    one, _, broker = pair
    for value in (b"{", b"[1]", b'{"worker":5}', b'{"worker":"\xff"}', b'{"x":' * 100_000):
        broker.write(Bucket.LEASES, DUTY, value)
        assert await one.take()
        assert one.lease.positions == {}
    assert value_of(None).worker == ""
