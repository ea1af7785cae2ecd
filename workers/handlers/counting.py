"""Reports the counters of the process of handlers to the control process."""

import os
import socket
from collections.abc import Callable, Sequence

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from fanline.protocol.hooks.counters import (
    COUNTERS_SUBJECT,
    HandlersCounters,
    HookCounters,
    WebhookCounters,
    decode_counters_question,
)
from fanline.protocol.management.answers import server_name


async def answer_counters(
    client: Client, hooks: Callable[[], Sequence[HookCounters]], webhooks: Callable[[], Sequence[WebhookCounters]]
) -> None:
    """Answer from now on. nats.errors.Error."""
    server = server_name(socket.gethostname(), os.getppid())

    async def take(message: Msg) -> None:
        question = decode_counters_question(message.data)
        if question is not None and question.to in ("", server):
            counters = HandlersCounters(server, list(hooks()), list(webhooks()))
            await client.publish(message.reply, msgspec.json.encode(counters))

    await client.subscribe(COUNTERS_SUBJECT, cb=take)
