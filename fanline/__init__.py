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
from fanline._message import Gap, Message, Position, Published  # noqa: E402
from fanline._subscription import Subscription  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "Client",
    "ConnectionLost",
    "ConnectionRefused",
    "FanlineError",
    "Gap",
    "Message",
    "Position",
    "Published",
    "ServerError",
    "SlowConsumer",
    "Subscription",
    "__version__",
]
