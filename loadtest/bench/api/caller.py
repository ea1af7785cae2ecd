"""`python -m fanline.loadtest.bench.api.caller KIND PORT`: backends, or a program that opens connections to the API and
sends nothing, until the input ends.
"""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count, cycle
from typing import NamedTuple

import msgspec
import trio

from fanline.loadtest.bench.beside import Disturb, disturb

CALLS_PER_SECOND = 200
SILENT = 1000
QUIET = "quiet"
"""The kind that waits for the control process, and does nothing."""
_API = "/api/v1/websocket"
_AGAIN_SECONDS = 0.1
_READ_BYTES = 1 << 16


class _Call(NamedTuple):
    method: str
    path: str
    make: Callable[[int], object] = lambda _: None
    """The body, from the number of the call."""


CALLS = (
    _Call("POST", "/publish", lambda number: {"messages": [{"channel": "news:all", "data": {"number": number}}]}),
    _Call("POST", "/send-to-user", lambda number: {"user_id": f"user-{number % 100}", "message": {"number": number}}),
    _Call("GET", "/stats"),
    _Call("POST", "/publish", lambda number: {"messages": [{"channel": "user:7", "data": {"number": number}}]}),
    _Call("GET", "/connections?limit=50"),
    _Call("GET", "/online-users"),
    _Call("POST", "/send-to-channel", lambda number: {"channel": "news:all", "message": {"number": number}}),
    _Call("GET", "/info"),
)
"""What backends do, in turn: half of the calls send, the other half read."""


class Backends:
    """Programs that call the API with a key, each call on a connection of its own."""

    def __init__(self, port: int, got: Counter[str]) -> None:
        self._port = port
        self._got = got

    async def call_for_ever(self) -> None:
        """At the given rate, whether answers come or not. Each call begins at any moment of its share of a second:
        calls in step with the messages would meet each of them in the same state for a whole run, a good or a bad one.
        """
        key, calls = await _new_key(self._port), cycle(CALLS)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in count():
                nursery.start_soon(self._call, next(calls), number, key)
                await trio.sleep_until(begun + (number + 1 + random.random()) / CALLS_PER_SECOND)  # noqa: S311

    async def _call(self, call: _Call, number: int, key: str) -> None:
        try:
            status, _ = await _ask(self._port, call, number, key)
        except (OSError, trio.BrokenResourceError):
            status = "cut off"
        self._got[status] += 1


async def _calls(port: int, got: Counter[str]) -> None:
    await Backends(port, got).call_for_ever()


async def _silence(port: int, got: Counter[str]) -> None:
    """Connections that send nothing, or (every other one) a head without its body; reopened when they are closed."""
    async with trio.open_nursery() as nursery:
        for number in range(SILENT):
            nursery.start_soon(_say_nothing, port, got, b"" if number % 2 else _head("POST", "/publish", 1000, ""))


async def _say_nothing(port: int, got: Counter[str], beginning: bytes) -> None:
    while True:
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                got["opened"] += 1
                await stream.send_all(beginning)
                while await stream.receive_some(_READ_BYTES):
                    pass
        got["closed"] += 1
        await trio.sleep(_AGAIN_SECONDS)


async def _nothing(_port: int, _got: Counter[str]) -> None:
    await trio.sleep_forever()


CALLERS: dict[str, Disturb] = {"calls": _calls, "silence": _silence}


async def _ask(port: int, call: _Call, number: int = 0, key: str = "") -> tuple[str, bytes]:
    """Status and body of the answer; "" for no answer."""
    said = call.make(number)
    body = b"" if said is None else msgspec.json.encode(said)
    answer = bytearray()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(_head(call.method, call.path, len(body), key) + body)
        while data := await stream.receive_some(_READ_BYTES):
            answer += data
    head, _, rest = bytes(answer).partition(b"\r\n\r\n")
    return head[9:12].decode(), rest


def _head(method: str, path: str, length: int, key: str) -> bytes:
    lines = (
        f"{method} {_API}{path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *((f"X-API-Key: {key}",) if key else ()),
    )
    return "\r\n".join((*lines, "", "")).encode()


async def _new_key(port: int) -> str:
    wanted = {"name": "bench", "rights": ["read", "publish"]}
    _, body = await _ask(port, _Call("POST", "/keys", lambda _: wanted))
    return str(msgspec.json.decode(body)["key"])


async def _control_is_up(port: int) -> None:
    """Its start takes a second of CPU, which is not to be measured."""
    while (await _ask(port, _Call("GET", "/stats")))[0] != "200":  # noqa: ASYNC110  # it is another process
        await trio.sleep(_AGAIN_SECONDS)


if __name__ == "__main__":
    disturb({**CALLERS, QUIET: _nothing}, _control_is_up)
