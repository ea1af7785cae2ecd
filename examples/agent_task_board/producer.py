"""The backend of a board on which agents work: python producer.py PROJECT. Needs `pip install nats-py` and NATS_URL."""

import asyncio
import json
import os
import sys
from typing import Any

import nats
from nats.aio.client import Client

PROJECT = sys.argv[1]


async def main() -> None:
    connection = await nats.connect(os.environ["NATS_URL"])
    board = f"project.{PROJECT}"
    await tell(connection, board, "task_created", task_id="t1", title="Repair the login", status="todo")
    await tell(connection, board, "agent_spawned", agent_id="a1", task_id="t1")
    await tell(connection, board, "plan_generated", agent_id="a1", steps=["reproduce", "repair", "test"])
    await tell(connection, board, "task_status_changed", task_id="t1", old_status="todo", new_status="done")
    # To every connection, whatever it is subscribed to: priority 8 or 9 in the namespace `system`.
    await tell(connection, "system.all", "log", priority=8, message="all agents are idle")
    await connection.drain()


async def tell(connection: Client, subject: str, event: str, priority: int = 5, **data: Any) -> None:
    envelope = {"v": 1, "e": event, "pr": priority, "d": data}
    await connection.publish(f"fanline.pub.{subject}", json.dumps(envelope).encode())


asyncio.run(main())
