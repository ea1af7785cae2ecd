"""One WebSocket to the server under asyncio: by `websockets`."""

import asyncio
from urllib.parse import SplitResult, urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from fanline.client.machine.connection_life import OPEN_SECONDS
from fanline.client.machine.wire import MAX_MESSAGE_BYTES
from fanline.client.shells import asyncio_addresses, ends
from fanline.errors import ConnectionLost


async def open_connection(url: str, subprotocol: str, token: str | None) -> ClientConnection:
    """Connect, showing the token if there is one. Raises ConnectionRefused or ConnectionLost."""
    # Not by `connect` of websockets, which takes proxies from the environment and follows redirects, in some versions
    # with the token.
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            connection = await _open_stream(url, subprotocol)
            try:
                await connection.handshake({} if token is None else {"Authorization": f"Bearer {token}"})
            except BaseException:
                connection.transport.abort()
                raise
    except InvalidStatus as error:
        raise ends.rejected(url, error.response.status_code, bytes(error.response.body or b"")) from None
    except TimeoutError:
        raise ends.too_slow(url) from None
    except (InvalidHandshake, InvalidURI) as error:
        raise ends.unreachable(url, error.__cause__ or error) from None
    except OSError as error:
        raise ends.unreachable(url, error) from None
    return connection


async def _open_stream(url: str, subprotocol: str) -> ClientConnection:
    parts = urlsplit(url)

    def make() -> ClientConnection:
        address = parse_uri(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        protocol = ClientProtocol(address, subprotocols=[Subprotocol(subprotocol)], max_size=MAX_MESSAGE_BYTES)
        # The heartbeat is the machine's. The queue: pausing the socket per message would cost more than the message.
        return ClientConnection(protocol, ping_interval=None, close_timeout=ends.CLOSE_SECONDS, max_queue=64)

    host, is_secret = parts.hostname or "", parts.scheme == "wss"
    stream = await asyncio_addresses.connect(host, _port(parts))
    try:
        _, connection = await asyncio.get_running_loop().create_connection(
            make, sock=stream, ssl=is_secret, server_hostname=host if is_secret else None
        )
    except BaseException:
        stream.close()
        raise
    return connection


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "wss" else 80)


async def close_connection(connection: ClientConnection, writing: asyncio.Task[None]) -> None:
    """Send what is still on its way, and close it; both within CLOSE_SECONDS."""
    try:
        async with asyncio.timeout(ends.CLOSE_SECONDS):
            await asyncio.wait([writing])
            await connection.close()
    except TimeoutError:
        pass
    finally:
        writing.cancel()
        connection.transport.abort()


def end_of(error: ConnectionClosed) -> ConnectionLost:
    """What has ended a WebSocket."""
    close = error.rcvd or error.sent
    return ends.lost() if close is None else ends.closed(close.code, close.reason)
