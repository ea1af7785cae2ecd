"""The way to a server, one stage after the other: address, port, TLS, and a WebSocket on one path of it."""

import math
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

import h11
import msgspec
import trio
import trio_websocket
import wsproto.utilities

from fanline.base.groups import first_error
from fanline.cli.probe.findings import Destination, Finding, Verdict, closed, refusal, silence

STAGE_SECONDS = 5.0
"""How long each stage may take, and each answer."""

_HTTP = b"HTTP/"
Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class Blocked(Exception):  # noqa: N818  # reads as what happened
    """The way does not go on; `finding` says where and why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


class _Watched(trio.abc.Stream):
    """A stream that tells if something else than HTTP comes, or nothing: trio-websocket would wait on."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._head = b""
        self.is_foreign = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._head += bytes(data[: len(_HTTP) - len(self._head)])  # it may come byte by byte
        if not _HTTP.startswith(self._head) or (not data and self._head != _HTTP):
            self.is_foreign.set()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


class Socket:
    """An open WebSocket that speaks JSON objects."""

    def __init__(self, part: str, websocket: trio_websocket.WebSocketConnection) -> None:
        self._part = part
        self._websocket = websocket

    async def say(self, message: Mapping[str, Any]) -> None:
        """Blocked if the connection has ended."""
        try:
            await self._websocket.send_message(msgspec.json.encode(message).decode())
        except trio_websocket.ConnectionClosed as error:
            raise Blocked(_closed(self._part, error)) from None

    async def hear(self, wanted: str, *types: str, seconds: float = STAGE_SECONDS) -> dict[str, Any]:
        """The next message, or the next of these types. Blocked if none comes, or it is no JSON object."""
        try:
            with trio.fail_after(seconds):
                while True:
                    message = self._read(await self._websocket.get_message())
                    if not types or message.get("type", message.get("t")) in types:
                        return message
        except trio_websocket.ConnectionClosed as error:
            raise Blocked(_closed(self._part, error)) from None
        except trio.TooSlowError:
            raise Blocked(silence(self._part, wanted, seconds)) from None

    def _read(self, text: str | bytes) -> dict[str, Any]:
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.MsgspecError:
            text = "the message is not a JSON object"
            raise Blocked(Finding(self._part, Verdict.FAILED, text, "this is no Fanline server")) from None


async def resolve(target: Destination) -> list[str]:
    """The addresses of the target's name. Blocked."""
    try:
        found = await trio.socket.getaddrinfo(target.host, target.port, type=trio.socket.SOCK_STREAM)
    except OSError as error:
        advice = "is the name spelt right, and does this machine's DNS know it?"
        raise Blocked(Finding("address", Verdict.FAILED, f"{target.host}: {error.strerror or error}", advice)) from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def connect(target: Destination) -> trio.SocketStream:
    """A TCP connection. Blocked."""
    where = f"{target.host}, port {target.port}"
    try:
        with trio.fail_after(STAGE_SECONDS):
            return await trio.open_tcp_stream(target.host, target.port)
    except trio.TooSlowError:
        text, advice = f"{where}: no answer within {STAGE_SECONDS:g} s", "a firewall on the way may drop the packets"
    except OSError as error:
        text, advice = (
            f"{where}: {_cause(error)}",
            "does `fanline serve` run there, and listen on this address and port?",
        )
    raise Blocked(Finding("connect", Verdict.FAILED, text, advice))


async def secure(target: Destination, stream: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
    """TLS on a connection, with the certificate checked. Blocked; the connection is closed then."""
    wrapped = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=target.host, https_compatible=True)
    try:
        with trio.fail_after(STAGE_SECONDS):
            await wrapped.do_handshake()
    except trio.TooSlowError:
        text, advice = f"no answer to the TLS handshake within {STAGE_SECONDS:g} s", "does this port speak TLS?"
    except trio.BrokenResourceError as error:
        text, advice = _tls_failure(error.__cause__)
    else:
        return wrapped
    await trio.aclose_forcefully(wrapped)
    raise Blocked(Finding("tls", Verdict.FAILED, text, advice))


@asynccontextmanager
async def open_stream(target: Destination) -> AsyncIterator[Stream]:
    """A connection with all that comes before HTTP. Blocked."""
    plain = await connect(target)
    stream: Stream = await secure(target, plain) if target.secure else plain
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_socket(
    target: Destination, path: str, part: str, token: str | None, subprotocol: str | None = None
) -> AsyncIterator[Socket]:
    """A WebSocket on a path of the target. Blocked, inside the block too."""
    headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
    try:
        async with open_stream(target) as stream, trio.open_nursery() as nursery:
            watched = _Watched(stream)
            nursery.start_soon(_refuse_foreign, watched)
            with trio.fail_after(STAGE_SECONDS):
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    cast("trio.SocketStream", watched),  # any trio.abc.Stream will do
                    target.authority,
                    target.prefix + path,
                    subprotocols=None if subprotocol is None else [subprotocol],
                    extra_headers=headers,
                )
            yield Socket(part, websocket)
            with trio.move_on_after(1):
                await websocket.aclose()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = first_error(group)
    except Exception as refused:  # noqa: BLE001  # sorted below
        error = refused
    else:
        return
    raise _blocked(part, error) from None


async def _refuse_foreign(watched: _Watched) -> NoReturn:
    await watched.is_foreign.wait()
    raise ConnectionAbortedError("that is not HTTP")


def _blocked(part: str, error: BaseException) -> BaseException:
    match error:
        case trio_websocket.ConnectionRejected():
            return Blocked(refusal(part, error.status_code, error.body or b""))
        case trio_websocket.ConnectionClosed():
            return Blocked(_closed(part, error))
        case trio.TooSlowError():
            return Blocked(silence(part, "answer to the handshake", STAGE_SECONDS))
        case trio.BrokenResourceError() | OSError():
            advice = "does a Fanline server listen on this port, and does it want wss://?"
            return Blocked(Finding(part, Verdict.FAILED, "what answers there does not speak WebSocket", advice))
        case h11.ProtocolError() | wsproto.utilities.ProtocolError() | trio_websocket.HandshakeError():
            advice = "a proxy may change the answer on its way; or no WebSocket server listens there"
            return Blocked(
                Finding(part, Verdict.FAILED, "the answer to the handshake is not that of a WebSocket", advice)
            )
    return error


def _closed(part: str, error: trio_websocket.ConnectionClosed) -> Finding:
    reason = error.reason
    return closed(part, None, "") if reason is None else closed(part, reason.code, reason.reason or "")


def _tls_failure(cause: BaseException | None) -> tuple[str, str]:
    if isinstance(cause, ssl.SSLCertVerificationError):
        advice = (
            "the certificate has to be for this name, not expired, and signed by an authority that this machine trusts"
        )
        return f"the certificate is not accepted: {cause.verify_message}", advice
    if isinstance(cause, ssl.SSLError):
        return f"no TLS there: {cause.reason or cause}", "does this port want ws:// in place of wss://?"
    return "the connection was closed in the TLS handshake", "does this port want ws:// in place of wss://?"


def _cause(error: BaseException) -> str:
    """Why the first of the addresses failed, in the system's words."""
    cause: BaseException = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    number = getattr(cause, "errno", None)
    return os.strerror(number) if number else str(cause)


def milliseconds(since: float) -> str:
    """The time since then on Trio's clock."""
    took = (trio.current_time() - since) * 1000
    return f"{took:.1f} ms" if took < 10 else f"{math.ceil(took)} ms"
