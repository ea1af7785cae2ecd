"""Clients that are hostile to the management API, in hundreds: others get their answers meanwhile."""

import socket
from contextlib import suppress

import trio

from tests.integration.control.test_control_process import API, ENV, wait_answer
from tests.support.raw_client import connect
from tests.support.servers.serve import running_serve

_POST = f"POST {API}/publish HTTP/1.1\r\nHost: localhost\r\n".encode()
_GET = f"GET {API}/info HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
KINDS = {
    "silent": (1000, b""),
    "half-heads": (1000, _POST + b"X: "),
    "half-bodies": (1000, _POST + b"Content-Length: 1000\r\n\r\nx"),
    "large-half-bodies": (100, _POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 999_000),
    "slow-readers": (500, _GET.replace(b"/info", b"/openapi.json")),
    "huge-heads": (200, _POST + b"X: " + b"y" * 100_000),
    "huge-bodies": (50, _POST + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 500_000),
    "pipelines": (100, _GET * 1000),
}
"""How many connections, and what each of them sends before it does nothing more, nor reads."""


async def hold(port: int, data: bytes, sent: trio.MemorySendChannel[None]) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        await stream.socket.connect(("127.0.0.1", port))
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        await sent.send(None)
        await trio.sleep_forever()


async def test_others_are_answered_while_hundreds_of_hostile_clients_are_there() -> None:
    patient = {f"FANLINE_ENGINE_{name}_TIMEOUT": "300" for name in ("HANDSHAKE", "FORWARD")}
    with trio.fail_after(250):
        async with running_serve(1, env=ENV | patient) as serve, connect("127.0.0.1", serve.port) as client:
            await wait_answer(serve)
            for kind, (count, data) in KINDS.items():
                print(kind)
                send, receive = trio.open_memory_channel[None](count)
                async with trio.open_nursery() as nursery:
                    for _ in range(count):
                        nursery.start_soon(hold, serve.port, data, send)
                    for _ in range(count // 2):  # the others may have to wait until there is room for them
                        await receive.receive()
                    for _ in range(5):
                        await wait_answer(serve)
                        assert (await client.ask({"t": "ping", "i": "1"}))["t"] == "pong"
                    nursery.cancel_scope.cancel()
