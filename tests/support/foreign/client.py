"""Clients that are not ours: `async with foreign("node") as client:`, over `ws` in Node or `websockets` in Python.

Each is a program of its own (driver.mjs, driver.py) that really connects, answers WebSocket pings and comes back as its
library does; nothing of Fanline is in it. A story is parametrized over KINDS.
"""

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.foreign.programs import Lines, running

HERE = Path(__file__).parent
KINDS = ("node", "websockets", "websockets-13")
_OLD_WEBSOCKETS = HERE / ".websockets-13"

Seen = dict[str, Any]
"""What a client reports, under `saw`: `open` (`subprotocol`), `message` (`text`), `close` (`code`, `reason`), `refused`
(`status`, and `body` except with 13.1), `failed` (no HTTP answer), `retry` (`after` how many seconds), `gave_up`.
"""


@dataclass(frozen=True, slots=True)
class Retry:
    """How a client comes back: after these delays in seconds, one for each try; an open connection begins the count
    again. No delays: never.
    """

    delays: tuple[float, ...] = ()
    final: tuple[int, ...] = ()
    """Close codes after which it does not."""

    def faster(self, factor: float) -> "Retry":
        """The same number of tries in less time."""
        return Retry(tuple(delay / factor for delay in self.delays), self.final)


class Foreign:
    """One client in a process of its own, with at most one connection at a time."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines = Lines(process)

    async def open(
        self,
        url: str,
        *,
        says: Sequence[Mapping[str, Any] | str] = (),
        retry: Retry = Retry(),
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
    ) -> None:
        """Connect; `says` is sent whenever a connection is open, also after coming back."""
        texts = [as_text(message) for message in says]
        ways = {"headers": dict(headers or {}), "subprotocols": list(subprotocols)}
        await self.order(do="open", url=url, says=texts, delays=retry.delays, final=retry.final, **ways)

    async def send(self, message: Mapping[str, Any] | str) -> None:
        """Send one text message; what is not text is sent as JSON."""
        await self.order(do="send", text=as_text(message))

    async def says(self, *messages: Mapping[str, Any] | str) -> None:
        """Send these now, and whenever a connection is open from now on, in place of what `open` was given."""
        await self.order(do="say", texts=[as_text(message) for message in messages])

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, for good."""
        await self.order(do="close", code=code, reason=reason)

    async def order(self, **order: Any) -> None:
        """Tell the program what to do."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(json.dumps(order).encode() + b"\n")

    async def seen(self) -> Seen:
        """The next report. EndOfChannel if the program has ended."""
        report: Seen = json.loads(await self.lines.receive())
        return report

    async def saw(self, *kinds: str) -> Seen:
        """The next report, which must be one of these kinds; the last of several in this order."""
        for kind in kinds:
            report = await self.seen()
            assert report["saw"] == kind, report
        return report

    async def message(self) -> dict[str, Any]:
        """The next message but for pings, decoded. Nothing else may have been seen before it."""
        while True:
            message: dict[str, Any] = json.loads((await self.saw("message"))["text"])
            if message.get("type") != "ping":
                return message

    async def heard(self, *types: str) -> dict[str, Any]:
        """The next messages but for pings have these types, in this order; the last of them."""
        for expected in types:
            message = await self.message()
            assert message["type"] == expected, message
        return message

    def kill(self) -> None:
        """End the process without a word; the kernel closes its connection."""
        self.process.kill()


@asynccontextmanager
async def foreign(kind: str) -> AsyncIterator[Foreign]:
    """A client of one of KINDS, not connected yet. Skips the test where the kind cannot be had."""
    async with running(*command(kind)) as process:
        yield Foreign(process)


def as_text(message: Mapping[str, Any] | str) -> str:
    return message if isinstance(message, str) else json.dumps(message)


def command(kind: str, file: str = "driver.mjs", python: str = "driver.py") -> tuple[list[str], dict[str, str]]:
    """How a program of this folder is started with the library of this kind: command and environment."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("NODE_", "PYTHON"))}
    if kind == "node":
        return [node(), str(HERE / file)], environ
    if kind == "websockets-13":
        _must_exist(_OLD_WEBSOCKETS / "websockets")
        environ["PYTHONPATH"] = str(_OLD_WEBSOCKETS)
    return [sys.executable, "-P", str(HERE / python)], environ


def node() -> str:
    """The path of Node. Only a machine without npm is excused: elsewhere a skipped story would go unnoticed."""
    binary = shutil.which("node")
    if binary is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    _must_exist(HERE / "node_modules" / "ws")
    return binary


def _must_exist(folder: Path) -> None:
    if not folder.is_dir():
        pytest.fail(f"{folder.name} is not installed: run `make foreign`")
