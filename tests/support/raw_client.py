"""A WebSocket client that sends exactly what a test tells it to, right or wrong, over a real loopback socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from fanline.protocol.errors import CloseReason
from fanline.protocol.websocket.frames import FrameReader, Opcode, WebSocketMessage, decode_close, encode_masked_frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x01\x02\x03\x04"


def upgrade_request(path: str = "/ws", subprotocol: str | None = "fanline.v1.json", **replaced: str | None) -> bytes:
    """A valid opening handshake; `replaced` headers get another value, or are left out (None)."""
    headers: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Protocol": subprotocol,
    }
    headers.update({name.replace("_", "-"): value for name, value in replaced.items()})
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


class RawClient:
    """Bytes and frames over one TCP connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._reader = FrameReader(64 * 1024 * 1024, from_client=False)
        self._messages: list[WebSocketMessage] = []
        self.answers_pings = False
        self.connection = ""
        """The public id, if the `welcome` was read by `connect` and is JSON."""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def say(self, payload: bytes | str | dict[str, Any], opcode: Opcode = Opcode.TEXT) -> None:
        """Send one masked message; a dict is sent as JSON."""
        data = msgspec.json.encode(payload) if isinstance(payload, dict) else payload
        await self.send(encode_masked_frame(opcode, data.encode() if isinstance(data, str) else data, MASK))

    async def read_http(self) -> tuple[int, dict[str, str], bytes]:
        """Read an HTTP response to the end of the stream; its status, headers (names in lower case) and body."""
        data = b""
        while chunk := await self.stream.receive_some():
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return int(status.split()[1]), {name.lower(): value for name, value in pairs}, body

    async def read_head(self) -> bytes:
        """Read the head of an HTTP response, and nothing of what follows. EndOfChannel at the end of the stream."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = await self.stream.receive_some(1)
            if not data:
                raise trio.EndOfChannel
            head += data
        return head

    async def upgrade(self, subprotocol: str | None = "fanline.v1.json", path: str = "/ws", **headers: str) -> None:
        """Shake hands, and read the 101 response. ConnectionRefusedError if the server has no room."""
        await self.send(upgrade_request(path, subprotocol=subprotocol, **headers))
        head = await self.read_head()
        if head.startswith(b"HTTP/1.1 503 "):
            raise ConnectionRefusedError(head)
        assert head.startswith(b"HTTP/1.1 101 "), head
        deflated = b"permessage-deflate" in head
        self._reader = FrameReader(64 * 1024 * 1024, from_client=False, deflated=deflated)

    async def message(self) -> WebSocketMessage:
        """The next message or control frame that is not a ping. EndOfChannel at the end of the stream."""
        while True:
            while self._messages:
                message = self._messages.pop(0)
                if message.opcode is not Opcode.PING:
                    return message
                if self.answers_pings:
                    await self.send(encode_masked_frame(Opcode.PONG, message.payload, MASK))
            data = await self.stream.receive_some()
            if not data:
                raise trio.EndOfChannel
            self._messages.extend(self._reader.feed(data))

    async def json(self) -> dict[str, Any]:
        """The next text message as a dict."""
        message = await self.message()
        assert message.opcode is Opcode.TEXT, message
        decoded: dict[str, Any] = msgspec.json.decode(message.payload)
        return decoded

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command and return the next text message."""
        await self.say(command)
        return await self.json()

    async def closed(self) -> tuple[int, str]:
        """Read until the close frame; its code and text, or 1006 if there is none."""
        try:
            while (message := await self.message()).opcode is not Opcode.CLOSE:
                pass
        except (trio.EndOfChannel, trio.BrokenResourceError):
            return CloseReason.ABNORMAL.code, ""
        return decode_close(message.payload)


@asynccontextmanager
async def connect_raw(host: str, port: int) -> AsyncIterator[RawClient]:
    """A TCP connection without any handshake."""
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        yield RawClient(stream)


@asynccontextmanager
async def connect(host: str, port: int, subprotocol: str | None = "fanline.v1.json") -> AsyncIterator[RawClient]:
    """An open WebSocket whose `welcome` has been read."""
    async with connect_raw(host, port) as client:
        await client.upgrade(subprotocol)
        welcome = await client.message()
        if welcome.opcode is Opcode.TEXT:
            said = msgspec.json.decode(welcome.payload)
            client.connection = said.get("d", {}).get("connection") or said.get("connection_id", "")
        yield client
