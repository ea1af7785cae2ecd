"""A connection to one nats-server over a plain Trio stream, with as much of the NATS protocol as a producer needs."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio

from fanline.protocol.nats.client_protocol import (
    PING,
    PONG,
    NatsAddress,
    NatsError,
    NatsMessage,
    Reply,
    ServerInfo,
    connect_command,
    parse_info,
    read_server,
    subscribe_command,
    unsubscribe_command,
)

ANSWER_SECONDS = 10.0
_RECEIVE_BYTES = 1 << 16
MessageHandler = Callable[[NatsMessage], None]


class NatsClient:
    """Opened by `open_nats`. Several tasks may use it, but only one may call `receive`, and must do so continually:
    everything that the server sends is handled there.

    A nats-server drops a client that leaves two of its pings, sent two minutes apart, unanswered; `receive` answers
    them.
    """

    def __init__(self, stream: trio.abc.Stream, address: NatsAddress) -> None:
        self.info = ServerInfo()
        self.received = 0
        """How many replies and messages were received."""
        self.pongs = 0
        """How many of our pings were answered."""
        self._stream = stream
        self._address = address
        self._buffer = b""
        self._unhandled: list[Reply | NatsMessage] = []
        self._lock = trio.Lock()
        self._handlers: dict[int, MessageHandler] = {}
        self._last_sid = 0

    async def start(self) -> None:
        """Log in, over TLS if either side requires it. Raises NatsError if the server refuses."""
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._log_in()
        except trio.TooSlowError:
            raise NatsError(f"the NATS server did not answer within {ANSWER_SECONDS:g} seconds") from None

    async def send(self, commands: bytes) -> None:
        """Send whole commands, in the order of the calls. Raises NatsError if the connection is lost."""
        async with self._lock:
            try:
                await self._stream.send_all(commands)
            except trio.BrokenResourceError as error:
                await self._receive_rest()
                raise _lost(error) from None

    def subscription(self, subject: str, handler: MessageHandler) -> tuple[int, bytes]:
        """The ID of a new subscription and the command to send. `receive` then calls `handler`, which must not raise,
        with each message.
        """
        self._last_sid += 1
        command = subscribe_command(subject, self._last_sid)
        self._handlers[self._last_sid] = handler
        return self._last_sid, command

    def unsubscription(self, sid: int) -> bytes:
        """The command that ends a subscription; its handler is not called any more."""
        self._handlers.pop(sid, None)
        return unsubscribe_command(sid)

    async def receive(self) -> None:
        """Wait for a reply or message of the server, and handle it. Raises NatsError if the server reports an error or
        closes the connection.
        """
        item = await self._next()
        self.received += 1
        if isinstance(item, NatsMessage):
            handler = self._handlers.get(item.sid)
            if handler is not None:
                handler(item)
        elif item.verb == "-ERR":
            raise NatsError(f"the NATS server refused: {item.detail}")
        elif item.verb == "PING":
            await self.send(PONG)
        elif item.verb == "PONG":
            self.pongs += 1

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def _log_in(self) -> None:
        item = await self._next()
        while isinstance(item, NatsMessage) or item.verb != "INFO":
            item = await self._next()
        info, address = parse_info(item.detail), self._address
        if address.tls or info.tls_required:
            context = ssl.create_default_context()
            self._stream = trio.SSLStream(self._stream, context, server_hostname=address.host)
        tls = isinstance(self._stream, trio.SSLStream)
        user, password, token = address.user, address.password, address.token
        login = connect_command(name="fanline", user=user, password=password, token=token, tls=tls)
        await self.send(login + PING)
        while not self.pongs:
            await self.receive()
        self.info = info

    async def _next(self) -> Reply | NatsMessage:
        while not self._unhandled:
            try:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            except trio.BrokenResourceError as error:
                raise _lost(error) from None
            if not data:
                raise NatsError("the NATS server closed the connection")
            self._unhandled, self._buffer = read_server(self._buffer + data)
        return self._unhandled.pop(0)

    async def _receive_rest(self) -> None:
        """Receive what the server sent before it closed: its error says more than "broken pipe"."""
        with trio.move_on_after(1), suppress(trio.BusyResourceError):  # busy: another task receives it
            while True:
                await self.receive()


@asynccontextmanager
async def open_nats(address: NatsAddress) -> AsyncIterator[NatsClient]:
    """Connect to a nats-server. Raises NatsError."""
    where = f"nats://{address.host}:{address.port}"
    try:
        with trio.fail_after(ANSWER_SECONDS):
            stream = await trio.open_tcp_stream(address.host, address.port)
    except (OSError, UnicodeError, trio.TooSlowError) as error:
        raise NatsError(f"cannot connect to {where}: {error or 'no answer'}") from None
    client = NatsClient(stream, address)
    try:
        await client.start()
        yield client
    finally:
        await client.aclose()


def _lost(error: BaseException) -> NatsError:
    return NatsError(f"the connection to NATS was lost: {error.__cause__ or error}")
