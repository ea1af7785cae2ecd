"""One worker at a time holds a lease, whichever of them sleeps, dies or releases it."""

import pytest
import trio
from trio.testing import MockClock

from fanline.engine.bus.interface import BusError
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.tasks.lease import EXPIRY_SECONDS, RENEW_SECONDS, Lease, ReadPosition
from fanline.protocol.nats.names import Bucket

DUTY = "duty"


@pytest.fixture
def pair() -> tuple[Lease, Lease, MemoryBroker]:
    broker = MemoryBroker()
    return Lease(MemoryBus(broker), DUTY), Lease(MemoryBus(broker), DUTY), broker


Pair = tuple[Lease, Lease, MemoryBroker]


async def test_only_one_of_several_workers_gets_it(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    assert await one.take()
    assert not await other.take()
    assert await one.take()  # its own
    assert not await other.renew()
    assert (one.valid, other.valid) == (True, False)


async def test_of_two_workers_that_find_it_free_at_once_one_gets_it(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    got: list[bool] = []

    async def take(lease: Lease) -> None:
        got.append(await lease.take())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, one)
        nursery.start_soon(take, other)
    assert sorted(got) == [False, True]


async def test_a_renewed_lease_is_never_free(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    await one.take()
    for _ in range(20):
        assert await one.renew()
        assert one.valid
        assert not await other.take()
        await trio.sleep(RENEW_SECONDS)


async def test_a_lease_that_is_not_renewed_goes_to_another_worker_when_its_holder_no_longer_relies_on_it(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other, _ = pair
    await one.take()
    one.positions["task"] = ReadPosition("e", 7)
    await one.renew()
    one.positions["task"] = ReadPosition("e", 8)  # not stored before it died
    started = trio.current_time()
    while not await other.take():
        assert trio.current_time() - started < EXPIRY_SECONDS + 0.5
        await trio.sleep(0.1)
    assert not one.valid
    assert other.positions == {"task": ReadPosition("e", 7)}
    assert not await one.renew()
    assert not await one.take()


async def test_its_holder_no_longer_relies_on_a_lease_some_time_before_it_is_free(
    autojump_clock: MockClock, pair: Pair
) -> None:
    one, other, _ = pair
    await one.take()
    one.check()
    assert not await other.take()
    await trio.sleep(EXPIRY_SECONDS - 0.4)
    assert not one.valid
    with pytest.raises(BusError, match="another worker may hold the lease"):
        one.check()
    assert not await other.take()


async def test_a_released_lease_is_free_at_once_with_its_positions(autojump_clock: MockClock, pair: Pair) -> None:
    one, other, _ = pair
    await one.take()
    one.positions["task"] = ReadPosition("e", 9)
    await one.release()
    assert not one.valid
    assert await other.take()
    assert other.positions == {"task": ReadPosition("e", 9)}
    await one.release()  # no longer its own
    assert await other.renew()


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
    assert await one.renew()
    assert not await other.take()


async def test_an_entry_that_cannot_be_read_is_a_free_lease(autojump_clock: MockClock, pair: Pair) -> None:
    one, _, broker = pair
    for value in (b"", b"{", b"[1]", b'{"worker":5}'):
        broker.write(Bucket.LEASES, DUTY, value)
        assert await one.take()
        assert one.positions == {}
