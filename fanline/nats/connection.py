"""A connection to one nats-server, over a plain Trio stream: what a producer needs, and no more of NATS."""

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
Take = Callable[[NatsMessage], None]


class NatsClient:
    """Made by `open_nats`. Safe for many tasks, of which one calls `receive` over and over: all news come in there.

    A nats-server drops whoever leaves two of its pings (two minutes apart) unanswered; `receive` answers them.
    """

    def __init__(self, stream: trio.abc.Stream, address: NatsAddress) -> None:
        self.info = ServerInfo()
        self.heard = 0
        self.pongs = 0
        """How many of our pings were answered."""
        self._stream = stream
        self._address = address
        self._buffer = b""
        self._news: list[Reply | NatsMessage] = []
        self._lock = trio.Lock()
        self._takers: dict[int, Take] = {}
        self._sids = 0

    async def start(self) -> None:
        """Introduce ourselves, through TLS if either side wants it. NatsError if we are not welcome."""
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await self._greet()
        except trio.TooSlowError:
            raise NatsError(f"the NATS server did not answer within {ANSWER_SECONDS:g} seconds") from None

    async def send(self, commands: bytes) -> None:
        """Send whole commands, in the order of the calls. NatsError if the connection is lost."""
        async with self._lock:
            try:
                await self._stream.send_all(commands)
            except trio.BrokenResourceError as error:
                await self._last_words()
                raise _lost(error) from None

    def subscription(self, subject: str, take: Take) -> tuple[int, bytes]:
        """Its number, and the command to send; `take` then gets each message, in `receive`, and must not raise."""
        self._sids += 1
        command = subscribe_command(subject, self._sids)
        self._takers[self._sids] = take
        return self._sids, command

    def unsubscription(self, sid: int) -> bytes:
        """The command to send; `take` hears no more from now on."""
        self._takers.pop(sid, None)
        return unsubscribe_command(sid)

    async def receive(self) -> None:
        """Wait for something from the server, and handle it. NatsError for its complaint, and for the end."""
        news = await self._next()
        self.heard += 1
        if isinstance(news, NatsMessage):
            take = self._takers.get(news.sid)
            if take is not None:
                take(news)
        elif news.verb == "-ERR":
            raise NatsError(f"the NATS server refused: {news.detail}")
        elif news.verb == "PING":
            await self.send(PONG)
        elif news.verb == "PONG":
            self.pongs += 1

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def _greet(self) -> None:
        news = await self._next()
        while isinstance(news, NatsMessage) or news.verb != "INFO":
            news = await self._next()
        info, address = parse_info(news.detail), self._address
        if address.tls or info.tls_required:
            context = ssl.create_default_context()
            self._stream = trio.SSLStream(self._stream, context, server_hostname=address.host)
        tls = isinstance(self._stream, trio.SSLStream)
        user, password, token = address.user, address.password, address.token
        hello = connect_command(name="fanline", user=user, password=password, token=token, tls=tls)
        await self.send(hello + PING)
        while not self.pongs:
            await self.receive()
        self.info = info

    async def _next(self) -> Reply | NatsMessage:
        while not self._news:
            try:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            except trio.BrokenResourceError as error:
                raise _lost(error) from None
            if not data:
                raise NatsError("the NATS server closed the connection")
            self._news, self._buffer = read_server(self._buffer + data)
        return self._news.pop(0)

    async def _last_words(self) -> None:
        """Receive what the server has said before it went: that is worth more than "broken pipe"."""
        with trio.move_on_after(1), suppress(trio.BusyResourceError):  # busy: another task will say it
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
