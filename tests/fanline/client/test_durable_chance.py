"""Durable channels in the client under random faults; a failing seed is replayed by its number in the test's name."""

import random
from typing import Any

import pytest
import trio

import fanline
from tests.fanline.client.durable_peer import CHANNEL, DurablePeer, Items, durable_peer, take_data
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds

pytestmark = pytest.mark.usefixtures("hurry")


@pytest.mark.parametrize("seed", range(25))
async def test_under_random_cuts_losses_and_repeats_every_subscription_gets_its_exact_sequence(seed: int) -> None:
    chance, older, end = random.Random(f"test{seed}"), 40, 190
    with trio.fail_after(20):
        async with durable_peer(seed, cut=0.05, lose=0.05, repeat=0.1) as peer, fanline.Client(peer.url) as client:
            for number in range(older):
                peer.append(number)
            place = fanline.Position(peer.log[9].offset, peer.epoch)
            wishes: list[tuple[int | None, dict[str, Any]]] = [
                (None, {}),
                (None, {"last": 25}),
                (0, {"start": True}),
                (10, {"positions": {CHANNEL: place}}),
            ]
            chance.shuffle(wishes)
            entered = [trio.Event() for _ in wishes]
            async with trio.open_nursery() as nursery:
                for number in range(older, end - 1):
                    if wishes and (chance.random() < 0.1 or number == end - 2):
                        first, wish = wishes.pop()
                        event = entered[len(wishes)]
                        nursery.start_soon(_expect, client.subscribe(CHANNEL, **wish), first, end, event)
                    await peer.publish(number)
                    if chance.random() < 0.3:
                        await trio.lowlevel.checkpoint()
                for event in entered[len(wishes) :]:
                    await event.wait()
                await peer.publish(end - 1)
                await _nudge(peer, nursery)


async def _expect(subscription: Items, first: int | None, end: int, entered: trio.Event) -> None:
    """Every number from `first` (None: whichever comes first) up to the end, in order."""
    async with subscription as messages:
        entered.set()
        found = await take_data(messages, 1)
        assert first in (None, found[0])
        assert await take_data(messages, end - 1 - found[0]) == list(range(found[0] + 1, end))


async def _nudge(peer: DurablePeer, nursery: trio.Nursery) -> None:
    """The loss of the very last message shows with the next connection: as long as a task waits, make one more."""
    while nursery.child_tasks:
        await peer.cut()
        await trio.sleep(0.02)


@pytest.mark.parametrize("seed", range(10))
async def test_subscriptions_that_come_and_go_take_nothing_from_those_that_stay(seed: int) -> None:
    chance = random.Random(seed)
    with trio.fail_after(20):
        async with durable_peer(seed, cut=0.02, lose=0.03) as peer, fanline.Client(peer.url) as client:
            peer.append(0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect, client.subscribe(CHANNEL, start=True), 0, 100, trio.Event())
                nursery.start_soon(_come_and_go, client, chance)
                for number in range(1, 100):
                    await peer.publish(number)
                    await trio.lowlevel.checkpoint()
                await _nudge(peer, nursery)


@pytest.mark.parametrize("seed", range(10))
async def test_refusals_that_pass_cost_no_subscription_a_message(seed: int) -> None:
    with trio.fail_after(20):
        async with durable_peer(seed, cut=0.03, lose=0.1) as peer, fanline.Client(peer.url) as client:
            peer.append(0)
            entered = [trio.Event(), trio.Event()]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect, client.subscribe(CHANNEL, start=True), 0, 100, entered[0])
                nursery.start_soon(_expect, client.subscribe(CHANNEL), None, 100, entered[1])
                for event in entered:
                    await event.wait()
                peer.refuse = 0.5
                for number in range(1, 100):
                    await peer.publish(number)
                    await trio.lowlevel.checkpoint()
                peer.refuse = 0.0
                await _nudge(peer, nursery)


async def _come_and_go(client: fanline.Client, chance: random.Random) -> None:
    for _ in range(8):
        with trio.move_on_after(chance.random() * 0.01):
            async with client.subscribe(CHANNEL, last=chance.randrange(1, 9)) as messages:
                before = await take_data(messages, 1)
                assert await take_data(messages, 2) == [before[0] + 1, before[0] + 2]
