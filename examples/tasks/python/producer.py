"""A task in Python with nothing but nats-py: python producer.py ID [STEPS]"""

import asyncio
import json
import os
import sys
import time
import uuid
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

HEARTBEAT = 5  # seconds


class Task:
    def __init__(self, connection: Client, task_id: str) -> None:
        self.id = task_id
        self.connection = connection
        self.cancelled_by: str | None = None

    async def tell(self, event: str, **data: Any) -> None:
        message_id = uuid.uuid4().hex
        envelope = {"v": 1, "e": event, "i": message_id, "ts": time.time_ns() // 1_000_000, "d": data}
        headers = {"Nats-Msg-Id": f"/task:{self.id}/{message_id}"}  # stored only once, even if it is sent again
        await self.connection.publish(f"fanline.pub.task.{self.id}", json.dumps(envelope).encode(), headers=headers)

    async def beat(self) -> None:
        while True:
            await self.connection.publish(f"fanline.beat.task.{self.id}", b"")
            await asyncio.sleep(HEARTBEAT / 2)

    async def answer(self, request: Msg) -> None:
        call = json.loads(request.data)
        if call["t"] == "ping":  # is a producer attached?
            reply: dict[str, Any] = {"v": 1, "t": "pong"}
        elif call.get("e") == "cancel":  # it may come more than once
            self.cancelled_by = call["u"]
            reply = {"v": 1, "t": "ok"}
        else:
            reply = {"v": 1, "t": "err", "d": {"code": "refused", "message": "this task can only be cancelled"}}
        if request.reply:
            await request.respond(json.dumps(reply).encode())


async def main(task_id: str, steps: int) -> None:
    connection = await nats.connect(os.environ["NATS_URL"])
    task = Task(connection, task_id)
    await connection.subscribe(f"fanline.ctl.task.{task_id}", cb=task.answer)
    await task.tell("task_started", title="Counting in Python", heartbeat=HEARTBEAT)
    beats = asyncio.create_task(task.beat())
    for step in range(1, steps + 1):
        if task.cancelled_by is not None:
            await task.tell("task_cancelled", by=task.cancelled_by)
            break
        await asyncio.sleep(0.1)  # the work
        await task.tell("task_output", lines=[f"step {step} is done"])
        await task.tell("task_progress", done=step, total=steps, stage="counting")
    else:
        await task.tell("task_completed", result={"counted": steps})
    beats.cancel()
    await connection.drain()


asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20))
