"""Publishing to NATS from a Trio program, over a plain socket: what a producer needs, and no more of NATS."""

import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio
from msgspec.structs import replace

from fanline._nats_answers import MSG, read_answers, store_answer, with_reply
from protocol.channels import check_channel, to_subject
from protocol.envelope import Envelope, check_texts, encode_json
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
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._listening = False
        self._unstored = 0  # messages whose storing has not been confirmed

    async def is_stored(self, channel: str) -> bool:
        """Whether a stream stores what is published to a channel: whether it is durable. Raises NatsError.

        JetStream knows; that no answer comes to a message would prove nothing.
        """
        async with self._lock:
            await self._listen()
            request = msgspec.json.encode({"subject": to_subject(check_channel(channel))})
            await self._send(with_reply(publish_command("$JS.API.STREAM.NAMES", request), self._inbox))
            return bool(store_answer((await self._expect(MSG, "JetStream")).detail).streams)

    async def publish(self, envelope: Envelope, *, stored: bool = False) -> None:
        """Send an envelope to its channel, in order. Only `flush` tells whether NATS took it. Raises NatsError.

        `stored`: then `flush` waits until JetStream has stored it, too; for a channel that `is_stored`. The id makes
        JetStream take a repeat only once, the same as on a WebSocket without a user.
        """
        subject = to_subject(check_channel(envelope.channel or ""))
        check_texts(envelope)
        payload = encode_json(replace(envelope, channel=None))
        if len(payload) > self._info.max_payload:
            raise NatsError(f"message of {len(payload)} bytes, but the NATS server takes {self._info.max_payload}")
        # One stream holds all channels of a namespace, and an id belongs to one channel.
        headers = {"Nats-Msg-Id": f"/{envelope.channel}/{envelope.id}"} if envelope.id and self._info.headers else None
        command = publish_command(subject, payload, headers)
        async with self._lock:
            if stored:
                await self._listen()
                self._unstored += 1
            await self._send(with_reply(command, self._inbox) if stored else command)

    async def flush(self) -> None:
        """Return when the server has taken everything published before, and stored what was to be stored.

        Raises NatsError with its complaint; what it concerns of that is not known then.
        """
        async with self._lock:
            await self._send(PING)
            ponged = False
            while not ponged or self._unstored:
                reply = await self._expect("PONG", "JetStream" if ponged else "the NATS server", or_message=True)
                ponged = ponged or reply.verb == "PONG"
                if reply.verb == MSG:
                    self._unstored -= 1
                    store_answer(reply.detail)

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

    async def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            await self._send(b"SUB %s 1\r\n" % self._inbox.encode())

    async def _expect(self, verb: str, who: str = "the NATS server", *, or_message: bool = False) -> Reply:
        """The next reply of that verb; answers pings on the way. Raises NatsError for -ERR, end or silence."""
        with trio.move_on_after(ANSWER_SECONDS):
            while True:
                reply = await self._next_reply()
                if reply.verb == "-ERR":
                    raise NatsError(f"the NATS server refused: {reply.detail}")
                if reply.verb == verb or (or_message and reply.verb == MSG):
                    return reply
                if reply.verb == "PING":
                    await self._stream.send_all(PONG)
        raise NatsError(f"{who} did not answer within {ANSWER_SECONDS:g} seconds")

    async def _next_reply(self) -> Reply:
        while not self._replies:
            try:
                data = await self._stream.receive_some(_RECEIVE_BYTES)
            except trio.BrokenResourceError as error:
                raise NatsError(f"the connection to NATS was lost: {error.__cause__ or error}") from None
            if not data:
                raise NatsError("the NATS server closed the connection")
            self._replies, self._buffer = read_answers(self._buffer + data)
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
