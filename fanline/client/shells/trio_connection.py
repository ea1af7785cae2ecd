"""One WebSocket to the server under Trio: by trio-websocket, with a stream that is ours."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, urlsplit

import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from fanline.base.groups import first_error
from fanline.client.machine.connection_life import OPEN_SECONDS
from fanline.client.machine.wire import MAX_MESSAGE_BYTES
from fanline.client.shells import ends
from fanline.errors import ConnectionLost

ENDS = (trio_websocket.ConnectionClosed, LocalProtocolError, trio.BrokenResourceError, OSError)
"""What the end of a WebSocket may raise."""


@asynccontextmanager
async def open_connection(
    url: str, subprotocol: str, token: str | None
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """Connect, showing the token if there is one. Every failure of the connection, inside the block too, is one of our
    two errors.
    """
    try:
        async with _open_websocket(url, subprotocol, token) as websocket:
            yield websocket
    except trio_websocket.ConnectionRejected as error:
        raise ends.rejected(url, error.status_code, error.body) from None
    except (trio_websocket.ConnectionClosed, LocalProtocolError) as error:
        raise end_of(error) from None
    except trio.TooSlowError:
        raise ends.too_slow(url) from None
    except (OSError, trio.BrokenResourceError) as error:
        raise ends.unreachable(url, _cause(error)) from None


@asynccontextmanager
async def _open_websocket(
    url: str, subprotocol: str, token: str | None
) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    # trio-websocket's own open_websocket_url leaves the socket to the garbage collector when the server closes first
    # or refuses; here the stream is ours.
    parts = urlsplit(url)
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = trio.current_time() + OPEN_SECONDS
    with trio.fail_at(deadline):
        stream = await _open_stream(parts)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_at(deadline):
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    parts.netloc.rpartition("@")[2],
                    resource,
                    subprotocols=[subprotocol],
                    extra_headers=[] if token is None else [(b"authorization", b"Bearer " + token.encode())],
                    message_queue_size=64,  # a task switch per message would cost more than the message
                    max_message_size=MAX_MESSAGE_BYTES,
                    receive_buffer_size=1 << 16,
                )
            yield websocket
            with trio.move_on_after(ends.CLOSE_SECONDS):
                await websocket.aclose()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = first_error(group)
    else:
        return
    finally:
        await trio.aclose_forcefully(stream)
    raise error


async def _open_stream(parts: SplitResult) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    host = parts.hostname or ""
    if parts.scheme == "ws":
        return await trio.open_tcp_stream(host, parts.port or 80)
    stream = await trio.open_ssl_over_tcp_stream(host, parts.port or 443, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _cause(error: Exception) -> BaseException:
    cause = error.__cause__ or error
    return ends.most_telling(cause.exceptions) if isinstance(cause, BaseExceptionGroup) else cause


def end_of(error: BaseException) -> ConnectionLost:
    """What has ended a WebSocket, of the errors in ENDS."""
    if isinstance(error, LocalProtocolError):
        return ConnectionLost("the server closed the connection while it was being written to")
    if not isinstance(error, trio_websocket.ConnectionClosed) or error.reason is None:
        return ends.lost()
    return ends.closed(error.reason.code, error.reason.reason)
