"""Three nats-servers with JetStream in a cluster, on loopback; each can be killed, frozen and started again."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

from tests.support.nats.client import NatsClient, connect_nats
from tests.support.nats.server import NatsServer
from tests.support.servers.free_port import free_port

SIZE = 3
READY_SECONDS = 60.0
_PROBE = {"name": "PROBE", "subjects": ["probe"], "num_replicas": SIZE, "storage": "memory"}
_Condition = Callable[[NatsClient], Awaitable[bool]]


class NatsCluster:
    """Its servers keep their ports and stores over `kill` and `start`."""

    def __init__(self, servers: tuple[NatsServer, ...]) -> None:
        self.servers = servers

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self.servers)

    def server_on(self, port: int | None) -> NatsServer:
        """The server that clients reach on this port."""
        (found,) = (server for server in self.servers if server.port == port)
        return found

    async def wait_leader(self) -> None:
        """Wait until JetStream has a leader: for some seconds after that one was killed it has none."""
        await self._until(lambda client: _succeeds(client, "INFO"))

    async def wait_replicas(self) -> None:
        """Wait until JetStream makes a stream that has a replica on each server."""
        await self._until(_can_replicate)

    async def leader_of(self, stream: str) -> NatsServer:
        """The server that leads the replicas of a stream, once there is one."""
        leaders: list[str] = []

        async def is_known(client: NatsClient) -> bool:
            reply = await client.ask(f"$JS.API.STREAM.INFO.{stream}")
            leaders.append(reply.get("cluster", {}).get("leader", ""))
            return bool(leaders[-1])

        await self._until(is_known)
        return self.servers[int(leaders[-1].removeprefix("n"))]

    async def _until(self, condition: _Condition) -> None:
        """Ask one running server after the other until one says yes; during an election it may not answer at all."""
        running = itertools.cycle([server for server in self.servers if server.running])
        with trio.fail_after(READY_SECONDS):
            for server in running:
                with trio.move_on_after(1):
                    async with connect_nats(server.url) as client:
                        while not await condition(client):
                            await trio.sleep(0.05)
                        return


@asynccontextmanager
async def running_cluster(config: str = "") -> AsyncIterator[NatsCluster]:
    """Three nats-servers that take streams with three replicas; `config` is for each of them."""
    with TemporaryDirectory(prefix="fanline-cluster-", ignore_cleanup_errors=True) as directory, ExitStack() as stack:
        cluster = NatsCluster(tuple(_servers(Path(directory), config)))
        async with trio.open_nursery() as nursery:
            for server in cluster.servers:
                stack.callback(server.kill)
                nursery.start_soon(server.start)
        await cluster.wait_replicas()
        yield cluster


def _servers(directory: Path, config: str) -> list[NatsServer]:
    routes = [free_port() for _ in range(SIZE)]  # the servers must know each other's before they start
    listed = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    servers = []
    for index, port in enumerate(routes):
        own = directory / f"n{index}"
        own.mkdir()
        cluster = f"server_name: n{index}\ncluster {{ name: test, listen: 127.0.0.1:{port}, routes: [{listed}] }}\n"
        servers.append(NatsServer(own, config=cluster + config))
    return servers


async def _can_replicate(client: NatsClient) -> bool:
    created = await _succeeds(client, f"STREAM.CREATE.{_PROBE['name']}", msgspec.json.encode(_PROBE))
    return created and await _succeeds(client, f"STREAM.DELETE.{_PROBE['name']}")


async def _succeeds(client: NatsClient, verb: str, payload: bytes = b"") -> bool:
    return "error" not in await client.ask(f"$JS.API.{verb}", payload)
