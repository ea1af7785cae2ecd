"""Two servers on a cluster of three nats-servers, one of which is killed or frozen at a time: nothing acknowledged is
lost, repeated or out of order, and no viewer is silent for much longer than JetStream itself.

HARD=1 also freezes servers, and kills the leader and a follower.
"""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from fanline.engine.namespaces import Namespaces
from fanline.protocol.nats.subjects import to_subject
from tests.support.durable.resuming_client import ResumingClient, ServerMessage, running_clients
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.cluster import NatsCluster, running_cluster
from tests.support.nats.server import NatsServer
from tests.support.servers.serve import Serve, running_serve, wait_until

HARD = os.environ.get("HARD") == "1"
STREAM = "FANLINE_project"
CHANNELS = ("project:0", "project:1", "project:2")
PER_SECOND = 50
"""Messages on each channel."""
ANSWER_SECONDS = 0.5
"""A producer that hears nothing for so long asks again: JetStream had no leader."""
EXTRA_SECONDS = 1.0
"""For how long a viewer may hear nothing, beyond JetStream."""
STALE_SECONDS = 5.0
"""By then a worker must have noticed that its nats-server is frozen."""
FROZEN_SECONDS = 10.0
Hurt = Callable[[NatsCluster], Awaitable[None]]
_LOST = (OSError, AssertionError, trio.BrokenResourceError)


class Silence:
    """The longest time without a sign of life."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last: float | None = None

    def ends(self) -> None:
        now = trio.current_time()
        self.longest = max(self.longest, now - (self._last or now))
        self._last = now


class Viewer(ResumingClient):
    """Notes for how long it hears nothing."""

    def __init__(self, serve: Serve, channel: str) -> None:
        super().__init__("127.0.0.1", serve.port, channel, {"o": 0})
        self.silence = Silence()

    def _take_message(self, frame: ServerMessage) -> None:
        self.silence.ends()
        super()._take_message(frame)


class Producer:
    """Stores numbers in a channel, one after the other, each until JetStream acknowledges it."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.acknowledged = 0
        self.silence = Silence()
        self._subject = to_subject(channel)

    async def run(self, cluster: NatsCluster, ended: trio.Event) -> None:
        for url in itertools.cycle(cluster.urls):
            with trio.move_on_after(ANSWER_SECONDS) as patience, suppress(*_LOST):
                async with connect_nats(url) as nats:
                    while not ended.is_set():
                        await self._store(nats)
                        patience.deadline = trio.current_time() + ANSWER_SECONDS
            if ended.is_set():
                return

    async def _store(self, nats: NatsClient) -> None:
        message_id = {"Nats-Msg-Id": f"{self.channel}/{self.acknowledged}"}
        reply = await nats.ask(self._subject, b"%d" % self.acknowledged, message_id)
        if "error" not in reply:
            self.acknowledged += 1
            self.silence.ends()
        await trio.sleep(1 / PER_SECOND)


async def kill(cluster: NatsCluster, server: NatsServer) -> None:
    server.kill()
    await cluster.wait_leader()
    await server.start()
    await cluster.wait_replicas()


async def freeze(cluster: NatsCluster, server: NatsServer) -> None:
    server.pause()
    await trio.sleep(FROZEN_SECONDS)
    server.resume()
    await cluster.wait_replicas()


async def kill_leader(cluster: NatsCluster) -> None:
    await kill(cluster, await cluster.leader_of(STREAM))


async def freeze_leader(cluster: NatsCluster) -> None:
    await freeze(cluster, await cluster.leader_of(STREAM))


async def kill_follower(cluster: NatsCluster) -> None:
    await kill(cluster, await follower(cluster))


async def freeze_follower(cluster: NatsCluster) -> None:
    await freeze(cluster, await follower(cluster))


async def follower(cluster: NatsCluster) -> NatsServer:
    """A server without the leader, to which workers are connected."""
    leader = await cluster.leader_of(STREAM)
    return next(server for server in cluster.servers[:2] if server is not leader)


async def kill_each_in_turn(cluster: NatsCluster) -> None:
    for server in cluster.servers:
        await kill(cluster, server)


@asynccontextmanager
async def two_servers(cluster: NatsCluster, directory: Path) -> AsyncIterator[tuple[Serve, Serve]]:
    """Each of two workers, which begin with different servers of the cluster."""
    config = directory / "fanline.toml"
    durable = Namespaces().durable()
    config.write_text("".join(f"[namespaces.{name}]\ndurable = true\nreplicas = 3\n" for name in durable))
    first, *rest = cluster.urls
    orders = (",".join((first, *rest)), ",".join((*rest, first)))
    one, two = (running_serve(2, ("--config", str(config), "--nats", urls)) for urls in orders)
    async with one as serve, two as other:
        yield serve, other


HARDER = (kill_leader, kill_follower, freeze_leader, freeze_follower)


@pytest.mark.parametrize("hurt", [kill_each_in_turn, *(HARDER if HARD else ())])
async def test_viewers_get_all_that_is_acknowledged_while_servers_of_the_cluster_fail(
    hurt: Hurt, tmp_path: Path
) -> None:
    producers, ended = [Producer(channel) for channel in CHANNELS], trio.Event()
    with trio.fail_after(110):
        async with running_cluster() as cluster, two_servers(cluster, tmp_path) as serves:
            viewers = [Viewer(serve, channel) for serve in serves for channel in CHANNELS * 2]
            async with running_clients(viewers):
                await wait_until(lambda: all(viewer.answers for viewer in viewers))
                async with trio.open_nursery() as nursery:
                    for producer in producers:
                        nursery.start_soon(producer.run, cluster, ended)
                    await a_second_more_is_stored(producers)
                    await hurt(cluster)
                    await a_second_more_is_stored(producers)
                    ended.set()
                await all_delivered(producers, viewers)
    report(producers, viewers)
    assert_promises_kept(producers, viewers)
    without_leader = max(producer.silence.longest for producer in producers)
    unnoticed = STALE_SECONDS if hurt in (freeze_leader, freeze_follower) else 0.0
    assert max(viewer.silence.longest for viewer in viewers) <= max(without_leader, unnoticed) + EXTRA_SECONDS


async def a_second_more_is_stored(producers: Sequence[Producer]) -> None:
    wanted = {producer: producer.acknowledged + PER_SECOND for producer in producers}
    await wait_until(lambda: all(producer.acknowledged >= count for producer, count in wanted.items()))


async def all_delivered(producers: Sequence[Producer], viewers: Sequence[Viewer]) -> None:
    wanted = {producer.channel: producer.acknowledged for producer in producers}
    with trio.move_on_after(10):
        while any(len(viewer.data) < wanted[viewer.channel] for viewer in viewers):
            await trio.sleep(0.02)


def report(producers: Sequence[Producer], viewers: Sequence[Viewer]) -> None:
    stored = [(producer.acknowledged, round(producer.silence.longest, 2)) for producer in producers]
    silences = sorted(round(viewer.silence.longest, 2) for viewer in viewers)
    print(f"stored, and the longest time without an acknowledgement: {stored}; without a message: {silences}")


def assert_promises_kept(producers: Sequence[Producer], viewers: Sequence[Viewer]) -> None:
    for producer in producers:
        for viewer in (viewer for viewer in viewers if viewer.channel == producer.channel):
            assert (viewer.faults, viewer.gaps, viewer.repeats) == ([], [], 0)
            # One more may be stored than was acknowledged, when the producer ended.
            assert viewer.data in (list(range(producer.acknowledged + more)) for more in (0, 1))
