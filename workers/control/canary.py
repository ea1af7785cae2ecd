"""The canary: a message that goes through NATS and a real worker to the socket of a real client, and back here.

The client says nothing but its handshake, so it needs no token; it is sent something by its public id, over NATS.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec
import trio
import trio_websocket

from fanline.protocol.management.questions import SendQuestion
from fanline.workers.control.cluster import Cluster

EVENT = "canary"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  # addresses that are listened on -> reached
_HEADERS = [(b"user-agent", b"fanline-canary")]
"""By which operators recognize it among the clients."""
_SUBPROTOCOL = "fanline.v1.json"


class CanaryError(Exception):
    """The canary has not come back; str() says why."""


async def fly(url: str, cluster: Cluster) -> float:
    """Seconds from the question on NATS to the message on the socket. CanaryError, BusError, ApiError."""
    try:
        async with _connected(url) as socket:
            welcome = msgspec.json.decode(await socket.get_message())
            begun = trio.current_time()
            question = SendQuestion(connection=str(welcome["d"]["connection"]), event=EVENT)
            try:
                # All workers are asked, and a dead one is waited for; the round trip does not include that wait.
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send, cluster, question)
                    while msgspec.json.decode(await socket.get_message()).get("e") != EVENT:
                        pass
                    nursery.cancel_scope.cancel()
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            return trio.current_time() - begun
    except trio_websocket.ConnectionRejected as error:
        raise CanaryError(f"a worker refuses a WebSocket with status {error.status_code}") from None
    except (OSError, msgspec.DecodeError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as error:
        raise CanaryError(f"no WebSocket to a worker: {error or type(error).__name__}") from None


async def _send(cluster: Cluster, question: SendQuestion) -> None:
    if not await cluster.send(question):
        raise CanaryError("no worker has the connection that was just made")


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    parts = urlsplit(url)
    host = _EVERYWHERE.get(parts.hostname or "", parts.hostname or "")
    target = f"{parts.scheme}://{host}:{parts.port}{parts.path}"
    context = _unverified() if parts.scheme == "wss" else None
    async with trio_websocket.open_websocket_url(
        target, context, subprotocols=[_SUBPROTOCOL], extra_headers=_HEADERS
    ) as socket:
        yield socket


def _unverified() -> ssl.SSLContext:
    """For our own server, whose certificate is for other names than its address; no secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
