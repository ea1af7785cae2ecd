"""A WebSocket client over the Python package `websockets`, current or 13.1, whichever is first on the path.

It is told what to do by JSON lines on stdin, and tells what it sees on stdout; client.py in this folder names the
orders and the reports. driver.mjs is its twin in JavaScript.
"""

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

import websockets

OLD = version("websockets").startswith("13.")
ABNORMAL = 1006

Order = dict[str, Any]


def tell(saw: str, **details: Any) -> None:
    print(json.dumps({"saw": saw, **details}), flush=True)


class Driver:
    """One client, with at most one connection at a time."""

    def __init__(self) -> None:
        self.connection: Any = None
        self.leaving = False
        self.says: list[str] = []
        self.visits: asyncio.Task[None] | None = None

    async def obey(self, told: Order) -> None:
        match told["do"]:
            case "open":
                self.leaving, self.says = False, told["says"]
                self.visits = asyncio.create_task(self.visit(told))
            case "send":
                await self.connection.send(told["text"])
            case "say":
                self.says = told["texts"]
                await self.say()
            case "close":
                self.leaving = True
                await self.connection.close(told["code"], told["reason"])

    async def visit(self, order: Order) -> None:
        """Connect, and come back as the order says."""
        delays, tries = order["delays"], 0
        while True:
            opened, code = await self.connect(order)
            tries = 0 if opened else tries
            if self.leaving or code in order["final"] or not delays:
                return
            if tries == len(delays):
                tell("gave_up")
                return
            tell("retry", after=delays[tries])
            await asyncio.sleep(delays[tries])
            tries += 1

    async def say(self) -> None:
        for text in self.says:
            await self.connection.send(text)

    async def connect(self, order: Order) -> tuple[bool, int]:
        """One connection, from its handshake to its end: whether it was open, and its close code."""
        try:
            self.connection = await websockets.connect(order["url"], **options(order))
        except (OSError, websockets.InvalidHandshake, websockets.InvalidMessage) as error:
            tell_refusal(error)
            return False, ABNORMAL
        tell("open", subprotocol=self.connection.subprotocol or "")
        await self.say()
        try:
            async for message in self.connection:
                tell("message", text=message)
        except websockets.ConnectionClosed:
            pass
        code = self.connection.close_code
        tell("close", code=code, reason=self.connection.close_reason or "")
        return True, code


def options(order: Order) -> dict[str, Any]:
    headers = {"extra_headers" if OLD else "additional_headers": order["headers"]}
    return {**headers, "subprotocols": order["subprotocols"] or None, **({} if OLD else {"proxy": None})}


def tell_refusal(error: Exception) -> None:
    response = getattr(error, "response", None)
    status = response.status_code if response else getattr(error, "status_code", None)
    if status is None:
        tell("failed")
    else:
        tell("refused", status=status, body=response.body.decode() if response else "")  # 13.1 hides the body


async def main() -> None:
    driver = Driver()
    while line := await asyncio.to_thread(sys.stdin.readline):
        await driver.obey(json.loads(line))


asyncio.run(main())
