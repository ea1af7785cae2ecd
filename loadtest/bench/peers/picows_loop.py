"""Peer: a loop of `send` over picows transports."""

from collections.abc import Sequence
from typing import Any

from picows import WSListener, WSMsgType, WSTransport, ws_create_server

from fanline.loadtest.bench.peers.loop import ANSWER, run


async def open_server(connections: list[Any]) -> int:
    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            connections.append(transport)
            transport.send(WSMsgType.TEXT, ANSWER.encode())

    server = await ws_create_server(lambda _request: Listener(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return port


def send(connections: Sequence[Any], payload: bytes) -> None:
    for connection in connections:
        connection.send(WSMsgType.TEXT, payload)


if __name__ == "__main__":
    run(open_server, send)
