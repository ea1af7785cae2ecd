"""A member of a project: python client.py USER [ws://localhost:8765]. Needs `pip install websockets`."""

import asyncio
import json
import sys

import websockets

USER = sys.argv[1]
URL = sys.argv[2] if len(sys.argv) > 2 else "ws://localhost:8765"


async def main() -> None:
    async for board in websockets.connect(URL):  # which comes back when the connection is lost
        try:
            await board.send(json.dumps({"type": "connect", "user_id": USER, "username": USER.title()}))
            await board.send(json.dumps({"type": "join_room", "room_id": "project_123", "room_name": "My Project"}))
            async for text in board:
                if show(json.loads(text)):
                    return
        except websockets.ConnectionClosed:
            print("connection lost", flush=True)


def show(message: dict) -> bool:
    """Print what a board would show; true when the item is under way."""
    data = message.get("data", {})
    match message["type"]:
        case "session_joined":
            print(message["user"]["username"], "is here", flush=True)
        case "task_created":
            print("new:", data["title"], f"({data['status']})", flush=True)
        case "task_status_changed":
            print(message["task_id"], data["old_status"], "->", data["new_status"], flush=True)
            return True
    return False


asyncio.run(main())
