"""What the Python peers share: options, the start on stdin, stamped messages, even pacing. On uvloop, without threads.

The stamp is that of native/common.h.
"""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

TICK_SECONDS = 0.001
BUSY_SECONDS = 0.01  # a publisher that is late lets the loop serve the sockets this often
ANSWER = '"t":"ok"'

Send = Callable[[Sequence[Any], bytes], None]


def run(open_server: Callable[[list[Any]], Awaitable[int]], send: Send) -> None:
    """Serve until stdin ends. `open_server` returns its port, and keeps its open connections in the given list."""
    loop = uvloop.new_event_loop()
    connections: list[Any] = []

    async def main() -> None:
        commands = _Commands(loop)
        _say({"port": await open_server(connections)})
        while await commands.next():
            await _publish(loop, connections, send)

    loop.run_until_complete(main())


class _Commands:
    """Lines on stdin."""

    def __init__(self, loop: uvloop.Loop) -> None:
        self._loop = loop
        loop.add_reader(sys.stdin.fileno(), self._read)
        self._next = loop.create_future()

    async def next(self) -> bool:
        """Wait for a line; False at the end of stdin."""
        line = await self._next
        self._next = self._loop.create_future()
        return bool(line)

    def _read(self) -> None:
        line = os.read(sys.stdin.fileno(), 4096)  # a line arrives in one piece
        if not self._next.done():
            self._next.set_result(line)


async def _publish(loop: uvloop.Loop, connections: Sequence[Any], send: Send) -> None:
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    count, rate, channels = int(given["count"]), float(given["rate"]), int(given["channels"])
    prefix, suffix = given["prefix"].encode(), given["suffix"].encode()
    filler = b"x" * (int(given["data"]) - 26)
    members = [connections[channel::channels] for channel in range(channels)]
    start = rested = time.monotonic()
    for k in range(count):
        now = time.monotonic()
        wait = start + k / rate - now
        if wait > 0 or now > rested + BUSY_SECONDS:
            await _sleep(loop, max(wait, TICK_SECONDS) if rate > 1 / TICK_SECONDS else max(wait, 0))
            rested = now
        stamp = b"@@%08d%016d" % (k // channels, time.monotonic_ns() // 1000)
        send(members[k * 7919 % channels], prefix + stamp + filler + suffix)
    _say({"published": count, "seconds": time.monotonic() - start})


async def _sleep(loop: uvloop.Loop, seconds: float) -> None:
    woken = loop.create_future()
    loop.call_later(seconds, woken.set_result, None)
    await woken


def _say(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
