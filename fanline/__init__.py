"""Fanline: publish and receive live messages. `import fanline` is all a program needs.

async with fanline.Client("ws://127.0.0.1:8080/ws") as client:
    async with client.subscribe("task:42") as messages:
        async for message in messages:
            print(message.event, message.data)
"""

from fanline.client.client import Client
from fanline.client.message import Gap, Message, Position, Published
from fanline.client.subscription import Subscription
from fanline.client.task_events import OutputLine, TaskUpdate
from fanline.client.task_view import TaskView
from fanline.errors import ConnectionLost, ConnectionRefused, FanlineError, ServerError, SlowConsumer
from fanline.producer.calls import Answer, AskExpired, Call, TaskCancelled
from fanline.producer.log_handler import LogHandler
from fanline.producer.running_task import AsyncTask, SyncTask, current_task
from fanline.producer.task import Task
from fanline.producer.tqdm import tqdm, trange
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.snapshot import Snapshot
from fanline.protocol.tasks.states import TaskState

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskExpired",
    "AsyncTask",
    "Call",
    "Client",
    "ConnectionLost",
    "ConnectionRefused",
    "FanlineError",
    "Gap",
    "LogHandler",
    "Message",
    "OutputLine",
    "Position",
    "Published",
    "ServerError",
    "SlowConsumer",
    "Snapshot",
    "Subscription",
    "SyncTask",
    "Task",
    "TaskCancelled",
    "TaskEvent",
    "TaskState",
    "TaskUpdate",
    "TaskView",
    "__version__",
    "current_task",
    "tqdm",
    "trange",
]
