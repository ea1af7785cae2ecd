"""Peer: `broadcast` of the websockets package."""

from collections.abc import Sequence
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve

from fanline.loadtest.bench.peers.loop import ANSWER, run


async def open_server(connections: list[Any]) -> int:
    async def handle(connection: ServerConnection) -> None:
        connections.append(connection)
        await connection.send(ANSWER)
        await connection.wait_closed()

    server = await serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None, max_queue=None)
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


def send(connections: Sequence[Any], payload: bytes) -> None:
    broadcast(connections, payload.decode())


if __name__ == "__main__":
    run(open_server, send)
