"""Fanline: publish and receive live messages. `import fanline` is all that a program needs.

async with fanline.Client("ws://127.0.0.1:8080/ws") as client:
    async with client.subscribe("task:42") as messages:
        async for message in messages:
            print(message.event, message.data)
"""

from fanline._guard import check_protocol_package as _check_protocol_package

_check_protocol_package()

from fanline._client import Client  # noqa: E402  # the guard speaks before anything imports `protocol`
from fanline._errors import (  # noqa: E402
    ConnectionLost,
    ConnectionRefused,
    FanlineError,
    ServerError,
    SlowConsumer,
)
from fanline._log_handler import LogHandler  # noqa: E402
from fanline._message import Gap, Message, Position, Published  # noqa: E402
from fanline._subscription import Subscription  # noqa: E402
from fanline._task import AsyncTask, SyncTask, Task, current_task  # noqa: E402
from fanline._task_calls import Answer, AskExpired, Call, TaskCancelled  # noqa: E402
from fanline._task_events import OutputLine, TaskUpdate  # noqa: E402
from fanline._task_view import TaskView  # noqa: E402
from fanline._tqdm import tqdm, trange  # noqa: E402
from protocol.task_data import TaskEvent  # noqa: E402
from protocol.task_state import TaskState  # noqa: E402
from protocol.tasks import Snapshot  # noqa: E402

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
