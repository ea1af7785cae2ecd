"""One connection to the server, from its welcome to its end: envelopes in, envelopes out, answers matched."""

import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import SplitResult, urlsplit

import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from fanline.client.control import server_error
from fanline.errors import ConnectionLost, ConnectionRefused, ServerError
from fanline.groups import first_error
from fanline.protocol.channels import check_channel, check_channel_or_pattern
from fanline.protocol.dialects import CborDialect, JsonDialect
from fanline.protocol.envelope import Envelope, MessageType, check_texts
from fanline.protocol.errors import CloseReason, ErrorCode, MessageError
from fanline.protocol.messages import Welcome, error_of, read
from fanline.protocol.websocket.frames import Opcode

OPEN_SECONDS = 10.0  # for the handshake, and again for the welcome
CLOSE_SECONDS = 1.0  # for the closing handshake
MAX_MESSAGE_BYTES = 8 << 20
_FINAL_CLOSES = {reason.code for reason in CloseReason if not reason.reconnect}
_PASSING_STATUS = {408, 425, 429}  # HTTP refusals that may end by themselves, besides 5xx

V1Dialect = JsonDialect | CborDialect


_FOR_PATTERNS = frozenset((MessageType.SUB, MessageType.UNSUB))


class _Request:
    """A command that waits for its answer."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        self.reply: Envelope | None = None


class ServerConnection:
    """An open connection. Sending never blocks and is never half done, so a caller may be cancelled anywhere."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, dialect: V1Dialect) -> None:
        self._websocket = websocket
        self._dialect = dialect
        self._silence = OPEN_SECONDS
        self._limit = MAX_MESSAGE_BYTES
        self._requests: dict[str, deque[_Request]] = {}  # by id, in the order of sending
        # Unbounded, but each caller waits for its answer: no more is queued than callers are waiting.
        self._outgoing, self._queue = trio.open_memory_channel[bytes](math.inf)
        self.lost = False
        self.id: str | None = None
        """The connection's public id; None if the server names none."""

    @property
    def waiting(self) -> bool:
        """True while a command waits for its answer."""
        return bool(self._requests)

    async def greet(self) -> None:
        """Read the welcome and take its limits. Raises ConnectionRefused, ConnectionLost."""
        if self._websocket.subprotocol != self._dialect.subprotocol:
            raise ConnectionRefused("this is no Fanline server: it does not know our subprotocol", final=True)
        with trio.move_on_after(OPEN_SECONDS):
            [envelope, *_] = self._decode(await self._websocket.get_message())
            if envelope.type == MessageType.ERR:
                raise ConnectionRefused(error_of(envelope).message, status=401, final=True)
            try:
                welcome = read(Welcome, envelope)
            except MessageError as error:
                raise ConnectionRefused(f"the server's welcome cannot be read: {error}", final=True) from None
            self._silence = welcome.heartbeat / 1000 or math.inf
            self._limit = welcome.limits.message
            self.id = welcome.connection or None
            return
        raise ConnectionRefused(f"the server did not say welcome within {OPEN_SECONDS:g} seconds")

    async def receive(self) -> list[Envelope]:
        """The envelopes of the next message; a silent server is asked for a sign of life. Raises ConnectionLost."""
        for _ in range(2):
            with trio.move_on_after(self._silence):
                return self._decode(await self._websocket.get_message())
            self.post(Envelope(MessageType.PING))
        raise ConnectionLost(f"nothing heard from the server for {2 * self._silence:g} seconds")

    async def write(self) -> None:
        """Send what is posted until the connection ends; run it as a task."""
        async for payload in self._queue:
            message = payload.decode() if self._dialect.opcode is Opcode.TEXT else payload
            try:
                await self._websocket.send_message(message)
            except (trio_websocket.ConnectionClosed, LocalProtocolError):
                return  # the reader meets the same end and knows the reason

    def post(self, command: Envelope) -> None:
        """Send a command without waiting for its answer. Raises ServerError for one that the server could only refuse:
        too large, no channel name, a text too long. (It could not even say which command that was.)
        """
        try:
            check_texts(command)
            if command.channel is not None:
                check = check_channel_or_pattern if command.type in _FOR_PATTERNS else check_channel
                check(command.channel)
        except MessageError as error:
            raise ServerError(error.code, str(error)) from None
        payload = self._dialect.encode(command)
        if len(payload) > self._limit:
            raise ServerError(ErrorCode.TOO_LARGE, f"{len(payload)} bytes, but the server takes {self._limit}")
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self._outgoing.send_nowait(payload)

    async def request(self, command: Envelope) -> Envelope:
        """Send a command and wait for its answer. Raises ServerError if refused, ConnectionLost if none can come."""
        assert command.id is not None
        self.post(command)
        request = _Request()
        queue = self._requests.setdefault(command.id, deque())
        queue.append(request)
        try:
            if not self.lost:
                await request.settled.wait()
        finally:
            self._forget(command.id, request)
        if request.reply is None:
            raise ConnectionLost(f"the connection was lost before `{command.type}` was answered; it may have been done")
        if request.reply.type == MessageType.ERR:
            raise server_error(request.reply)
        return request.reply

    def settle(self, reply: Envelope) -> None:
        """Hand an answer to the oldest command with its id; one that no command waits for is ignored."""
        queue = self._requests.get(reply.id or "")
        if queue:
            request = queue.popleft()
            request.reply = reply
            request.settled.set()

    def end(self) -> None:
        """No more answers will come: wake all callers that wait for one, and let `write` end."""
        self.lost = True
        self._outgoing.close()
        for queue in self._requests.values():
            for request in queue:
                request.settled.set()

    def _forget(self, id: str, request: _Request) -> None:  # noqa: A002  # the word of the protocol
        queue = self._requests[id]
        if request in queue:
            queue.remove(request)
        if not queue:
            del self._requests[id]

    def _decode(self, payload: str | bytes) -> list[Envelope]:
        try:
            return self._dialect.decode(payload.encode() if isinstance(payload, str) else payload)
        except MessageError as error:
            raise ConnectionLost(f"the server sent what cannot be read: {error}", final=True) from None


@asynccontextmanager
async def open_connection(url: str, dialect: V1Dialect, token: str | None = None) -> AsyncIterator[ServerConnection]:
    """Connect, showing the token if there is one, and wait for the welcome. Every failure of the connection, inside
    the block too, is one of our two errors.
    """
    try:
        async with _open_websocket(url, dialect.subprotocol, token) as websocket:
            connection = ServerConnection(websocket, dialect)
            await connection.greet()
            yield connection
    except trio_websocket.ConnectionRejected as error:
        raise _rejected(url, error) from None
    except trio_websocket.ConnectionClosed as error:
        raise _closed(error) from None
    except LocalProtocolError:
        raise ConnectionLost("the server closed the connection while it was being written to") from None
    except trio.TooSlowError:
        raise ConnectionRefused(f"no answer from {url} within {OPEN_SECONDS:g} seconds") from None
    except (OSError, trio.BrokenResourceError) as error:
        raise ConnectionRefused(f"cannot connect to {url}: {_cause(error)}") from None


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
            with trio.move_on_after(CLOSE_SECONDS):
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


def _cause(error: Exception) -> str:
    """Why the first of the addresses failed, in the system's words."""
    cause: BaseException = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there; is `fanline serve` running?"
    return str(cause)


def _rejected(url: str, error: trio_websocket.ConnectionRejected) -> ConnectionRefused:
    status = error.status_code
    body = (error.body or b"").decode("utf-8", "replace").strip()
    final = status < 500 and status not in _PASSING_STATUS
    return ConnectionRefused(f"{url} refused with HTTP {status} {body[:400]}".rstrip(), status=status, final=final)


def _closed(error: trio_websocket.ConnectionClosed) -> ConnectionLost:
    if error.reason is None:
        return ConnectionLost("the connection was lost")
    code, text = error.reason.code, error.reason.reason or error.reason.name
    return ConnectionLost(f"the server closed the connection: {text} ({code})", code=code, final=code in _FINAL_CLOSES)
