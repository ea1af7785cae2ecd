"""Fanline: publish and receive live messages. `import fanline` is all a program needs.

async with fanline.Client("ws://127.0.0.1:8080/ws") as client:
    async with client.subscribe("task:42") as messages:
        async for message in messages:
            print(message.event, message.data)
"""

import atexit
import importlib
import sys

TYPE_CHECKING = False  # as type checkers know it; the module `typing` takes as long to import as all the rest
if TYPE_CHECKING:
    import typing

    from fanline.client.client import Client
    from fanline.client.machine.presence import PresenceNotice
    from fanline.client.message import Gap, Message, PastMessages, Position, Published
    from fanline.client.plain.client import PlainClient
    from fanline.client.plain.presence_view import PlainPresenceView
    from fanline.client.plain.subscription import PlainSubscription
    from fanline.client.plain.task_view import PlainTaskView
    from fanline.client.presence_view import PresenceView
    from fanline.client.subscription import Subscription
    from fanline.client.task_events import OutputLine, TaskUpdate
    from fanline.client.task_view import TaskView
    from fanline.errors import (
        ConnectionLost,
        ConnectionRefused,
        FanlineError,
        NotPublished,
        ServerError,
        SlowConsumer,
    )
    from fanline.producer.calls import Answer, AskExpired, Call, TaskCancelled, TaskRetrying
    from fanline.producer.reporters.log_handler import LogHandler
    from fanline.producer.reporters.tqdm import tqdm, trange
    from fanline.producer.running_task import AsyncTask, SyncTask, current_task
    from fanline.producer.task import Task
    from fanline.protocol.messages.answers import PresenceData, PresentUser
    from fanline.protocol.nats.options import NatsOptions
    from fanline.protocol.tasks.events import TaskData, TaskEvent
    from fanline.protocol.tasks.snapshot import Ask, Snapshot
    from fanline.protocol.tasks.states import TaskState
    from fanline.publishing.notify import notify
    from fanline.publishing.publish import publish
    from fanline.publishing.receipt import Receipt

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
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
    "NatsOptions",
    "NotPublished",
    "OutputLine",
    "PastMessages",
    "PlainClient",
    "PlainPresenceView",
    "PlainSubscription",
    "PlainTaskView",
    "Position",
    "PresenceData",
    "PresenceNotice",
    "PresenceView",
    "PresentUser",
    "Published",
    "Receipt",
    "ServerError",
    "SlowConsumer",
    "Snapshot",
    "Subscription",
    "SyncTask",
    "Task",
    "TaskCancelled",
    "TaskData",
    "TaskEvent",
    "TaskRetrying",
    "TaskState",
    "TaskUpdate",
    "TaskView",
    "__version__",
    "current_task",
    "notify",
    "publish",
    "tqdm",
    "trange",
]

# A name is imported when it is first used: a job that only reports needs neither Trio nor a WebSocket client.
_MODULES = {
    "client.client": ("Client",),
    "client.message": ("Gap", "Message", "PastMessages", "Position", "Published"),
    "client.machine.presence": ("PresenceNotice",),
    "client.plain.client": ("PlainClient",),
    "client.plain.presence_view": ("PlainPresenceView",),
    "client.plain.subscription": ("PlainSubscription",),
    "client.plain.task_view": ("PlainTaskView",),
    "client.presence_view": ("PresenceView",),
    "client.subscription": ("Subscription",),
    "client.task_events": ("OutputLine", "TaskUpdate"),
    "client.task_view": ("TaskView",),
    "errors": ("ConnectionLost", "ConnectionRefused", "FanlineError", "NotPublished", "ServerError", "SlowConsumer"),
    "producer.calls": ("Answer", "AskExpired", "Call", "TaskCancelled", "TaskRetrying"),
    "producer.reporters.log_handler": ("LogHandler",),
    "producer.reporters.tqdm": ("tqdm", "trange"),
    "producer.running_task": ("AsyncTask", "SyncTask", "current_task"),
    "producer.task": ("Task",),
    "protocol.messages.answers": ("PresenceData", "PresentUser"),
    "protocol.nats.options": ("NatsOptions",),
    "protocol.tasks.events": ("TaskData", "TaskEvent"),
    "protocol.tasks.snapshot": ("Ask", "Snapshot"),
    "protocol.tasks.states": ("TaskState",),
    "publishing.notify": ("notify",),
    "publishing.publish": ("publish",),
    "publishing.receipt": ("Receipt",),
}
_MODULE_OF = {name: f"fanline.{module}" for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker, which would take any name for an attribute, knows them from above

    def __getattr__(name: str) -> "typing.Any":
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'fanline' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
        return value


del TYPE_CHECKING


@atexit.register  # here, so that it runs after the exit handlers of those who import Fanline, whatever they use first
def _finish() -> None:
    thread = sys.modules.get("fanline.nats.thread")
    if thread is not None:
        thread.finish_all()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
