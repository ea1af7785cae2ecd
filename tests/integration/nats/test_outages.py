"""A nats-server is frozen under load: no worker stays deaf, and what was acknowledged arrives once and in order."""

import itertools
import os
import signal

import msgspec
import trio

from fanline.protocol.nats.names import MESSAGE_ID, producer_store_id
from tests.support.durable.resuming_client import ResumingClient, running_clients
from tests.support.nats.client import connect_nats
from tests.support.nats.server import NatsServer, running_nats
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve

CHANNEL = "project:1"
PAUSE = 1 / 150
"""Seconds between two messages."""


class Publisher:
    """A producer on NATS: it numbers its messages, and waits for the acknowledgement of each."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self._stopped = False

    async def run(self, server: NatsServer) -> None:
        async with connect_nats(server.url) as nats:
            while not self._stopped:
                headers = {MESSAGE_ID: producer_store_id(CHANNEL, str(self.acknowledged))}
                reply = await nats.ask("fanline.pub.project.1", b'{"v":1,"d":%d}' % self.acknowledged, headers)
                assert "error" not in reply, reply
                self.acknowledged += 1
                await trio.sleep(PAUSE)

    def stop(self) -> None:
        self._stopped = True


async def test_no_worker_stays_deaf_after_its_nats_server_was_frozen() -> None:
    with trio.fail_after(110):
        async with trio.open_nursery() as nursery:
            for seconds in (1.0, 2.5, 6.0, 15.0):
                nursery.start_soon(freeze_and_listen, seconds)


async def freeze_and_listen(seconds: float) -> None:
    """Freeze a nats-server for this long while clients subscribe and unsubscribe."""
    publisher = Publisher()
    async with (
        running_nats() as server,
        running_serve(1, ("--nats", server.url)) as serve,
        connect("127.0.0.1", serve.port) as ears,
    ):
        listener, viewer = Listener(ears), ResumingClient("127.0.0.1", serve.port, CHANNEL, {"o": 0})
        await ears.ask({"t": "sub", "c": "news:1", "i": "s"})
        async with running_clients([viewer]), trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            nursery.start_soon(speak, server)
            nursery.start_soon(come_and_go, serve)
            nursery.start_soon(publisher.run, server)
            while len(viewer.data) < 20:
                await trio.sleep(0.01)
            server.pause()
            await trio.sleep(seconds)
            server.resume()
            thawed = trio.current_time()
            while listener.newest < thawed + 5:
                await trio.sleep(0.01)
            publisher.stop()
            while len(viewer.data) < publisher.acknowledged:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    deaf = listener.heard_since(thawed)
    print(f"frozen for {seconds:g} s: deaf for {deaf:.2f} s afterwards")
    assert deaf < 3
    assert (viewer.faults, viewer.gaps, viewer.repeats) == ([], [], 0)
    assert viewer.data[: publisher.acknowledged] == list(range(publisher.acknowledged))


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
    with trio.fail_after(90):
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
