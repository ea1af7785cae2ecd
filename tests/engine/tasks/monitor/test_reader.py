"""What the reader of a namespace hands over, and for which shares."""

import trio
from trio.testing import MockClock

from fanline.engine.bus.memory import MemoryBus
from fanline.engine.bus.stored import Epoch, Stored
from fanline.engine.cluster.shares import SHARES, share_of
from fanline.engine.tasks.monitor.lease import Lease
from fanline.engine.tasks.monitor.reader import NamespaceReader
from fanline.engine.tasks.monitor.share import Share


async def test_what_was_heard_for_an_earlier_holding_of_a_share_is_not_taken_while_it_is_loaded_again(
    autojump_clock: MockClock,
) -> None:
    bus, taken = MemoryBus(), list[str]()

    def take(share: Share, epoch: Epoch, stored: Stored) -> None:
        taken.append(stored.channel)

    async def begin_epoch(namespace: str, epoch: Epoch, *, recreated: bool) -> None:
        raise AssertionError

    def hold() -> Share:
        return Share(0, Lease(bus, "", ""))

    shares: list[Share | None] = [hold() for _ in range(SHARES)]
    for share in shares:
        assert share is not None
        share.loaded = True
    reader = NamespaceReader(bus, "task", shares, take, lambda: False, begin_epoch)
    await reader.listen()
    given_back, kept = "task:a", next(f"task:{n}" for n in range(99) if share_of(f"task:{n}") != share_of("task:a"))
    for channel in (given_back, kept):
        await bus.store(channel, b"{}")
    shares[share_of(given_back)] = hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert taken == [kept]
