"""The process of handlers: one asyncio loop, a connection to NATS, and the application's code. Started by the
supervisor only.

It may hang, crash or be killed: workers refuse their clients meanwhile, and the supervisor starts it again.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import cast

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from fanline.protocol.handlers import QUEUE, Handler, HandlerForm, parse_handler
from fanline.workers.handlers.connection import connect
from fanline.workers.handlers.desk import Desk
from fanline.workers.handlers.functions import Function, FunctionCalls, LoadError, load_function
from fanline.workers.handlers.service import HandlersOrder
from fanline.workers.handlers.webhooks import Webhooks
from fanline.workers.logs import configure_logging
from fanline.workers.supervision.reporting import BEAT_SECONDS, READY, beat, report

_MOST_WAITING = 10_000
"""Requests of one handler that nats-py holds for us; further ones are dropped, and their clients refused."""
_log = logging.getLogger("fanline.handlers")


def main() -> int:
    """Answer requests until SIGTERM. Returns the exit code: 1 if it cannot, as reported."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=HandlersOrder)
    configure_logging("handlers")
    cast("TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)  # what the application prints, when it does
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # the text; the application's modules are in the working directory
    try:
        functions = _load(order.handlers)
        asyncio.run(serve(order, functions))
    except (LoadError, nats.errors.Error, OSError) as error:
        report(order.report_fd, str(error) or type(error).__name__)
        return 1
    return 0


def _load(texts: tuple[str, ...]) -> dict[Handler, Function | None]:
    """The handlers with their functions, None for webhooks. Raises LoadError."""
    handlers = [parse_handler(text) for text in texts]
    return {each: load_function(each) if each.form is HandlerForm.FUNCTION else None for each in handlers}


async def serve(order: HandlersOrder, functions: dict[Handler, Function | None]) -> None:
    """Answer until SIGTERM. Raises nats.errors.Error or OSError if NATS cannot be reached."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    settings = order.settings.handlers
    webhooks = Webhooks(settings.timeout, settings.retries)
    desk = Desk(functions, FunctionCalls(settings.timeout, _end_stuck), webhooks)
    client = await connect(order.settings)
    answering = _Answering(client, desk)
    for subject in desk.subjects:
        await client.subscribe(subject, queue=QUEUE, cb=answering.take, pending_msgs_limit=_MOST_WAITING)
    await client.flush()
    report(order.report_fd, READY)
    beating = asyncio.create_task(_beat(order.report_fd))
    await stopped.wait()
    beating.cancel()
    await webhooks.aclose()
    _leave()


class _Answering:
    """Takes messages off nats-py, which waits for each callback to return before it makes the next one."""

    def __init__(self, client: Client, desk: Desk) -> None:
        self._client = client
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, message: Msg) -> None:
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Msg) -> None:
        answer = await self._desk.answer(message.subject, message.data)
        with suppress(nats.errors.Error):  # NATS is away: the worker hears of nothing, and refuses
            await self._client.publish(message.reply, answer)


async def _beat(report_fd: int) -> None:
    while True:
        beat(report_fd)
        await asyncio.sleep(BEAT_SECONDS)


def _end_stuck() -> None:
    _log.critical("calls that do not end hold all places: this process ends, and another one is started")
    _leave(1)


def _leave(exit_code: int = 0) -> None:
    """End at once: threads may run the application's code for ever."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    sys.exit(main())
