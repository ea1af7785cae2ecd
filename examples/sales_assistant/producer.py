"""The backend of a chat: python producer.py SESSION USER. Needs `pip install nats-py` and NATS_URL."""

import asyncio
import json
import os
import sys
from typing import Any

import nats
from nats.aio.client import Client

SESSION, USER = sys.argv[1:]


async def main() -> None:
    connection = await nats.connect(os.environ["NATS_URL"])
    for status in ("processing", "completed"):
        await tell(connection, f"session.{SESSION}", "ai_processing_status", status=status)
    # To all connections of the user; a user who is away gets it at the next connect.
    notice = {"title": "Quota", "message": "80 % of this month's messages are used", "type": "WARNING"}
    await tell(connection, f"user.{USER}", "notification", **notice)
    # To every connection: priority 8 or 9 in the namespace `system`.
    await tell(connection, "system.all", "system_maintenance_start", priority=8, message="back at noon")
    await connection.drain()


async def tell(connection: Client, subject: str, event: str, priority: int = 5, **data: Any) -> None:
    envelope = {"v": 1, "e": event, "pr": priority, "d": data}
    await connection.publish(f"fanline.pub.{subject}", json.dumps(envelope).encode())


asyncio.run(main())
