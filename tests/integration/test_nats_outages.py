"""Outages of NATS under load: a cluster that loses one server after the other, and a nats-server that is frozen.

Viewers are silent no longer than JetStream itself, and everything that was acknowledged reaches them once and in order.
"""

import itertools
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import trio

from fanline.engine.namespaces import Namespaces
from fanline.protocol.nats.names import MESSAGE_ID, deduplication_id
from tests.support.durable.resuming_client import ResumingClient, ServerMessage, running_clients
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.cluster import NatsCluster, running_cluster
from tests.support.nats.server import NatsServer, running_nats
from tests.support.raw_client import RawClient, connect
from tests.support.serve import Serve, running_serve

CHANNEL = "project:1"
PAUSE = 1 / 150
"""Seconds between two messages."""
TRY_SECONDS = 0.5
"""An acknowledgement that takes longer is asked for again, from the next server."""
_LOST = (OSError, trio.BrokenResourceError, trio.TooSlowError, AssertionError)


class Silence:
    """The longest time between two events."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._heard = trio.current_time()

    def hear(self) -> None:
        now = trio.current_time()
        self.longest = max(self.longest, now - self._heard)
        self._heard = now

    def restart(self) -> float:
        """Begin again; returns the longest so far."""
        self.hear()
        longest, self.longest = self.longest, 0.0
        return longest


class Viewer(ResumingClient):
    """A subscriber that knows how long it has heard nothing."""

    def __init__(self, serve: Serve) -> None:
        super().__init__("127.0.0.1", serve.port, CHANNEL, {"o": 0})
        self.silence = Silence()

    def _take_message(self, frame: ServerMessage) -> None:
        self.silence.hear()
        super()._take_message(frame)


class Publisher:
    """A producer on NATS: it numbers its messages, and repeats each under one id until JetStream acknowledges it."""

    def __init__(self, servers: Sequence[NatsServer]) -> None:
        self.acknowledged = 0
        self.silence = Silence()
        self._servers = itertools.cycle(servers)
        self._stopped = False

    async def run(self) -> None:
        while not self._stopped:
            server = next(self._servers)
            with suppress(*_LOST):
                if server.running:
                    await self._publish_at(server)
            await trio.sleep(0.02)

    async def stop(self) -> None:
        """Publish no more; returns when the last message is acknowledged."""
        self._stopped = True

    async def _publish_at(self, server: NatsServer) -> None:
        """Publish until a message is not acknowledged in time."""
        with trio.fail_after(TRY_SECONDS) as limit:
            async with connect_nats(server.url) as nats:
                while not self._stopped:
                    limit.deadline = trio.current_time() + TRY_SECONDS
                    await self._publish(nats)
                    await trio.sleep(PAUSE)

    async def _publish(self, nats: NatsClient) -> None:
        headers = {MESSAGE_ID: deduplication_id(CHANNEL, str(self.acknowledged))}
        payload = msgspec.json.encode({"v": 1, "d": self.acknowledged})
        reply = await nats.ask("fanline.pub.project.1", payload, headers)
        assert "error" not in reply, reply
        self.acknowledged += 1
        self.silence.hear()


@asynccontextmanager
async def running_publisher(servers: Sequence[NatsServer]) -> AsyncIterator[Publisher]:
    """It publishes until the block ends."""
    publisher = Publisher(servers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        try:
            yield publisher
        finally:
            await publisher.stop()


async def until_all_have(viewers: Sequence[Viewer], publisher: Publisher) -> None:
    while not all(len(viewer.data) >= publisher.acknowledged for viewer in viewers):
        await trio.sleep(0.01)


def assert_perfect(viewers: Sequence[Viewer], publisher: Publisher) -> None:
    for viewer in viewers:
        assert viewer.faults == []
        assert viewer.gaps == []
        # One more may be stored whose acknowledgement was still under way.
        assert viewer.data[: publisher.acknowledged] == list(range(publisher.acknowledged))
        assert len(viewer.data) <= publisher.acknowledged + 1


# --- a cluster ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_serves(cluster: NatsCluster, path: Path) -> AsyncIterator[tuple[Serve, Serve]]:
    """Two servers of two workers each, all streams with three replicas."""
    config = path / "fanline.toml"
    durable = Namespaces().durable()
    config.write_text("".join(f"[namespaces.{name}]\ndurable = true\nreplicas = 3\n" for name in durable))
    urls = list(cluster.urls)
    args = [("--config", str(config), "--nats", ",".join(urls[turn:] + urls[:turn])) for turn in range(2)]
    async with running_serve(2, args[0]) as first, running_serve(2, args[1]) as second:
        yield first, second


async def test_a_cluster_may_lose_each_of_its_servers_and_viewers_are_silent_no_longer_than_jetstream(
    tmp_path: Path,
) -> None:
    with trio.fail_after(110):
        async with running_cluster() as cluster, two_serves(cluster, tmp_path) as serves:
            viewers = [Viewer(serve) for serve in serves for _ in range(8)]  # some on each worker
            async with running_clients(viewers):
                while not all(viewer.live for viewer in viewers):
                    await trio.sleep(0.01)
                async with running_publisher(cluster.servers) as publisher:
                    for server in cluster.servers:
                        await lose_and_restart(server, cluster, publisher, viewers)
                await until_all_have(viewers, publisher)
    assert_perfect(viewers, publisher)
    assert publisher.acknowledged > 500
    assert all(viewer.connections == 1 for viewer in viewers)


async def lose_and_restart(
    server: NatsServer, cluster: NatsCluster, publisher: Publisher, viewers: Sequence[Viewer]
) -> None:
    for silence in (publisher.silence, *(viewer.silence for viewer in viewers)):
        silence.restart()
    server.kill()
    count = publisher.acknowledged
    while publisher.acknowledged < count + 300:  # 2 s after JetStream has a leader again
        await trio.sleep(0.01)
    leaderless = publisher.silence.restart()
    silent = max(viewer.silence.restart() for viewer in viewers)
    print(f"JetStream without a leader: {leaderless:.2f} s; a viewer silent for at most {silent:.2f} s")
    assert silent < leaderless + 1
    await server.start()
    await cluster.wait_replicas()


# --- a frozen server ------------------------------------------------------------------------------------------------


async def test_no_worker_stays_deaf_after_its_nats_server_was_frozen() -> None:
    with trio.fail_after(110):
        async with trio.open_nursery() as nursery:
            for seconds in (1.0, 2.5, 6.0, 15.0):
                nursery.start_soon(freeze_and_listen, seconds)


async def freeze_and_listen(seconds: float) -> None:
    """Freeze a nats-server for this long while clients subscribe and unsubscribe."""
    async with (
        running_nats() as server,
        running_serve(1, ("--nats", server.url)) as serve,
        connect("127.0.0.1", serve.port) as ears,
    ):
        listener, viewer = Listener(ears), Viewer(serve)
        await ears.ask({"t": "sub", "c": "news:1", "i": "s"})
        async with running_clients([viewer]), trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            nursery.start_soon(speak, server)
            nursery.start_soon(come_and_go, serve)
            async with running_publisher([server]) as publisher:
                while publisher.acknowledged < 20:
                    await trio.sleep(0.01)
                server.pause()
                await trio.sleep(seconds)
                server.resume()
                thawed = trio.current_time()
                while listener.newest < thawed + 5:
                    await trio.sleep(0.01)
            await until_all_have([viewer], publisher)
            nursery.cancel_scope.cancel()
    deaf = listener.heard_since(thawed)
    print(f"frozen for {seconds:g} s: deaf for {deaf:.2f} s afterwards")
    assert deaf < 3
    assert_perfect([viewer], publisher)


class Listener:
    """Hears the ephemeral messages of `speak`, which are numbered and say when they were sent."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._heard: list[tuple[int, float]] = []
        self.newest = 0.0

    async def run(self) -> None:
        while True:
            message = await self._client.json()
            if message["t"] == "pub":
                self._heard.append(tuple(message["d"]))
                self.newest = message["d"][1]

    def heard_since(self, moment: float) -> float:
        """Seconds after a moment from which on every message was heard, once and in order."""
        later = [(number, sent) for number, sent in self._heard if sent > moment]
        first = max((index for index in range(1, len(later)) if later[index][0] != later[index - 1][0] + 1), default=0)
        return later[first][1] - moment


async def speak(server: NatsServer) -> None:
    """Publish an ephemeral message every 10 ms; a server that is frozen takes all of them later."""
    async with connect_nats(server.url) as nats:
        for number in itertools.count():
            payload = msgspec.json.encode({"v": 1, "d": [number, trio.current_time()]})
            await nats.publish(("fanline.pub.news.1", payload))
            await trio.sleep(0.01)


async def come_and_go(serve: Serve) -> None:
    """Subscribe to channels and leave them, whether or not that is possible at the moment."""
    async with connect("127.0.0.1", serve.port) as client:
        for number in itertools.count():
            await client.ask({"t": "sub", "c": f"news:passing-{number}", "i": "s"})
            await client.ask({"t": "unsub", "c": f"news:passing-{number}", "i": "u"})


async def test_a_worker_ends_by_itself_although_nats_is_frozen_and_a_client_does_not_leave() -> None:
    with trio.fail_after(30):
        async with (
            running_nats() as nats,
            running_serve(1, ("--nats", nats.url), {"FANLINE_DRAIN_TIMEOUT": "0.5"}) as serve,
            connect("127.0.0.1", serve.port),
        ):
            nats.pause()
            os.kill(serve.pid, signal.SIGTERM)
            await serve.child.wait()
            nats.resume()
            assert "killed" not in serve.stderr_text()
            assert serve.child.ending == "exit code 0"
