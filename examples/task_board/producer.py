"""The backend of a task board: python producer.py [ws://localhost:8765]. Needs `pip install websockets`."""

import asyncio
import json
import sys

import websockets

URL = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765"
ITEM = {"task_id": "t1", "title": "Write the minutes", "status": "todo"}


async def main() -> None:
    async with websockets.connect(URL) as board:
        await board.recv()  # connection_established
        # To the assignee, who gets it later if not connected now, and to all who watch the project.
        await say(board, type="task_created", **ITEM, assignee_id="anna", project_id="project_123")
        # Neither is named again: the server remembers both.
        move = {"old_status": "todo", "new_status": "in_progress", "changed_by": "bert"}
        await say(board, type="task_status_changed", task_id="t1", **move)
        await say(board, type="get_tasks", project_id="project_123")
        while (answer := json.loads(await board.recv()))["type"] != "tasks":
            pass
        print(len(answer["tasks"]), "item on the board")


async def say(board: websockets.ClientConnection, **message: object) -> None:
    await board.send(json.dumps(message))


asyncio.run(main())
