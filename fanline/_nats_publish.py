"""Publishing to NATS from a Trio program, over a plain socket: what a producer needs, and no more of NATS."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from msgspec.structs import replace

from protocol.channels import check_channel, to_subject
from protocol.envelope import Envelope, encode_json
from protocol.nats_text import (
    PING,
    PONG,
    NatsAddress,
    NatsError,
    Reply,
    ServerInfo,
    connect_command,
    parse_info,
    publish_command,
    read_replies,
)

ANSWER_SECONDS = 10.0
_RECEIVE_BYTES = 1 << 16


class NatsPublisher:
    """An open connection to one nats-server; made by `open_nats_publisher`. Safe for many tasks.

    A nats-server drops whoever leaves two of its pings (two minutes apart) unanswered, and they are answered in
    `flush`: call it at least once a minute.
    """

    def __init__(self, stream: trio.abc.Stream, address: NatsAddress) -> None:
        self._stream = stream
        self._address = address
        self._buffer = b""
        self._replies: list[Reply] = []
        self._info = ServerInfo()
        self._lock = trio.Lock()

    async def publish(self, envelope: Envelope) -> None:
        """Send an envelope to its channel, in order. Only `flush` tells whether NATS took it. Raises NatsError."""
        subject = to_subject(check_channel(envelope.channel or ""))
        payload = encode_json(replace(envelope, channel=None))
        if len(payload) > self._info.max_payload:
            raise NatsError(f"message of {len(payload)} bytes, but the NATS server takes {self._info.max_payload}")
        headers = {"Nats-Msg-Id": envelope.id} if envelope.id and self._info.headers else None
        async with self._lock:
            await self._send(publish_command(subject, payload, headers))

    async def flush(self) -> None:
        """Return when the server has taken everything published before. Raises NatsError with its complaint."""
        async with self._lock:
            await self._send(PING)
            await self._expect("PONG")

    async def start(self) -> None:
        """Introduce ourselves, through TLS if either side wants it."""
        info = parse_info((await self._expect("INFO")).detail)
        if self._address.tls or info.tls_required:
            context = ssl.create_default_context()
            self._stream = trio.SSLStream(self._stream, context, server_hostname=self._address.host)
        address = self._address
        await self._send(
            connect_command(
                name="fanline",
                user=address.user,
                password=address.password,
                token=address.token,
                tls=isinstance(self._stream, trio.SSLStream),
            )
            + PING
        )
        await self._expect("PONG")
        self._info = info

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            await self._expect("the reason")  # the server's last words are worth more than "broken pipe"

    async def _expect(self, verb: str) -> Reply:
        """The next reply of that verb; answers pings on the way. Raises NatsError for -ERR, end or silence."""
        with trio.move_on_after(ANSWER_SECONDS):
            while True:
                reply = await self._next_reply()
                if reply.verb == "-ERR":
                    raise NatsError(f"the NATS server refused: {reply.detail}")
                if reply.verb == verb:
                    return reply
                if reply.verb == "PING":
                    await self._stream.send_all(PONG)
        raise NatsError(f"the NATS server did not answer within {ANSWER_SECONDS:g} seconds")

    async def _next_reply(self) -> Reply:
        while not self._replies:
            try:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            except trio.BrokenResourceError as error:
                raise NatsError(f"the connection to NATS was lost: {error.__cause__ or error}") from None
            if not data:
                raise NatsError("the NATS server closed the connection")
            self._replies, self._buffer = read_replies(self._buffer + data)
        return self._replies.pop(0)


@asynccontextmanager
async def open_nats_publisher(address: NatsAddress) -> AsyncIterator[NatsPublisher]:
    """Connect to a nats-server; on the way out everything published is flushed. Raises NatsError."""
    where = f"nats://{address.host}:{address.port}"
    try:
        with trio.fail_after(ANSWER_SECONDS):
            stream = await trio.open_tcp_stream(address.host, address.port)
    except (OSError, trio.TooSlowError) as error:
        raise NatsError(f"cannot connect to {where}: {error or 'no answer'}") from None
    publisher = NatsPublisher(stream, address)
    try:
        await publisher.start()
        yield publisher
        await publisher.flush()
    finally:
        await publisher.aclose()
