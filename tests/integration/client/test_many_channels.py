"""50 channels of one client, written to all the time, while the server loses one part after the other."""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio

import fanline
from tests.support.client_worlds.fixture import world  # noqa: F401  # each test runs in all worlds
from tests.support.servers.serve import Serve, running_serve, wait_until

CHANNELS = [f"doc:{number}" for number in range(50)]
Items = fanline.Subscription[fanline.Message | fanline.Gap]
Trouble = Callable[[Serve], Awaitable[None]]


async def _restart(serve: Serve) -> None:
    os.kill(serve.pid, signal.SIGTERM)
    await serve.start_again()


async def _kill_nats(serve: Serve) -> None:
    killed = serve.nats_pid()
    os.kill(killed, signal.SIGKILL)
    await wait_until(lambda: serve.is_whole() and serve.nats_pid() != killed, 60)


async def _kill_workers(serve: Serve) -> None:
    killed = serve.worker_pids()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: serve.is_whole() and not {*killed} & {*serve.worker_pids()}, 60)


class Writer:
    """Publishes round after round, a number to each channel, and knows what was stored."""

    def __init__(self, client: fanline.Client) -> None:
        self.rounds = 0
        self.until: int | None = None
        """The number of rounds after which it ends."""
        self._client = client

    async def run(self) -> None:
        while self.rounds != self.until:
            for channel in CHANNELS:
                await self._publish(channel, self.rounds)
            self.rounds += 1

    async def _publish(self, channel: str, number: int) -> None:
        """Until it is stored: the server may say that it is not, as long as NATS is away."""
        once = f"{channel}--number-{number:08}"
        while True:
            try:
                await self._client.publish(channel, number, deduplication_id=once)
            except (fanline.ServerError, fanline.ConnectionLost):
                await trio.sleep(0.02)
            else:
                return


@pytest.mark.parametrize("trouble", [_restart, _kill_nats, _kill_workers])
async def test_50_channels_get_everything_once_and_in_order_through(trouble: Trouble) -> None:
    with trio.fail_after(200):
        async with (
            running_serve() as serve,
            fanline.Client(serve.url) as client,
            fanline.Client(serve.url) as publisher,
            AsyncExitStack() as stack,
        ):
            items = {name: await stack.enter_async_context(client.subscribe(name, gaps=True)) for name in CHANNELS}
            writer = Writer(publisher)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run)
                await wait_until(lambda: writer.rounds >= 2, 60)
                await trouble(serve)
                writer.until = writer.rounds + 3
            for channel, subscription in items.items():
                await publisher.publish(channel, "end")
                assert await _taken(subscription) == [*range(writer.rounds), "end"], channel


async def _taken(items: Items) -> list[object]:
    """What comes up to the end; a gap stands for itself."""
    taken = list[object]()
    while "end" not in taken:
        item = await anext(items)
        taken.append(item.data if isinstance(item, fanline.Message) else item)
    return taken
