"""The Python client of the contract review, after the table of what each says and expects: python review.py URL.

It prints what it sees. It has the faults of its original: with `websockets` 14 or newer its connection has no
`.closed`, and its heartbeat ends before the first beat, since `time` is not imported.
"""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import websockets


def tell(saw: str, **details: Any) -> None:
    print(json.dumps({"saw": saw, **details}), flush=True)


class ReviewClient:
    def __init__(self, url: str) -> None:
        self.url = url
        self.socket: Any = None

    async def run(self) -> None:
        self.socket = await websockets.connect(self.url)
        tell("open")
        beats = asyncio.create_task(self.beat())
        beats.add_done_callback(lambda task: tell("no_more_beats", error=type(task.exception()).__name__))
        with suppress(websockets.ConnectionClosed):
            await self.listen()
        tell("close", code=self.socket.close_code)

    async def listen(self) -> None:
        async for text in self.socket:
            message = json.loads(text)  # what is no JSON ends it
            if message.get("type") == "connection":
                tell("connection", message=message["message"], task_id=message["task_id"])
                if not self.socket.closed:
                    await self.socket.send(json.dumps({"type": "get_status"}))
            elif message.get("type") == "status":
                tell("status", status=message["status"], contract=message.get("contract_type"))
            elif message.get("type") == "error":
                tell("error", message=message["message"])
            elif message.get("stage"):
                tell("progress", stage=message["stage"], progress=message["progress"])

    async def beat(self) -> None:
        while not self.socket.closed:
            await asyncio.sleep(0.1)
            beat = {"type": "heartbeat", "timestamp": time.time()}  # type: ignore[name-defined]  # noqa: F821
            await self.socket.send(json.dumps(beat))


asyncio.run(ReviewClient(sys.argv[1]).run())
