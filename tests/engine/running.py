"""A real engine on a real loopback socket, with the bus in memory: for tests that need no NATS and no processes."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio

from fanline.engine.access.access import Access
from fanline.engine.bus.memory import MemoryBroker, MemoryBus
from fanline.engine.hooks.settings import NO_HOOKS, ServedHooks
from fanline.engine.namespaces import Namespaces
from fanline.engine.server import Server
from fanline.engine.settings import EngineSettings


class RunningEngine(NamedTuple):
    server: Server
    bus: MemoryBus
    broker: MemoryBroker
    host: str
    port: int


@asynccontextmanager
async def running_engine(
    settings: EngineSettings | None = None,
    *,
    send_buffer: int | None = None,
    broker: MemoryBroker | None = None,
    access: Access | None = None,
    hooks: ServedHooks = NO_HOOKS,
    control: str = "",
    name: str = "",
) -> AsyncIterator[RunningEngine]:
    """Serve until the block ends. `send_buffer` bounds the kernel's buffer per connection: a peer is soon slow.

    `broker`: that of another engine, to be two workers of one cluster. `control`: the path of a control process's
    socket; `name`: as in the logs.
    """
    settings = settings or EngineSettings()
    broker = broker or MemoryBroker(Namespaces(settings.namespaces))
    bus = MemoryBus(broker)
    server = Server(bus, settings, access, name, hooks=hooks, control=control)
    with socket.socket() as listener:
        if send_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # accepted sockets inherit it
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.setblocking(False)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, listener)
            yield RunningEngine(server, bus, broker, *listener.getsockname())
            nursery.cancel_scope.cancel()
