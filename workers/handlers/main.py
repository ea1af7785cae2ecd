"""The process `handlers`: one asyncio loop, a connection to NATS, and the application's code. Started by the
supervisor only.

It may hang, crash or be killed: workers then refuse their clients, and the supervisor restarts it.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import cast

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from fanline.protocol.handlers import QUEUE, Handler, HandlerForm, parse_handler
from fanline.protocol.hooks.dead_letters import DEAD_QUEUE, DEAD_SUBJECT
from fanline.protocol.hooks.questions import hooks_handler
from fanline.workers.handlers.connection import connect
from fanline.workers.handlers.counting import answer_counters
from fanline.workers.handlers.desk import Desk
from fanline.workers.handlers.functions import Function, FunctionCalls, LoadError, load_function
from fanline.workers.handlers.hooks.desk import HookDesk
from fanline.workers.handlers.hooks.hooked import Hooked
from fanline.workers.handlers.hooks.listener import listen
from fanline.workers.handlers.hooks.loading import load_setups, set_up
from fanline.workers.handlers.hooks.saying import Saying
from fanline.workers.handlers.posting.office import PostOffice
from fanline.workers.handlers.service import HandlersOrder
from fanline.workers.handlers.stacks import watch_loop
from fanline.workers.handlers.webhooks import Webhooks
from fanline.workers.logs import configure_logging
from fanline.workers.process_name import name_process
from fanline.workers.supervision.reporting import BEAT_SECONDS, READY, beat, report

_MOST_WAITING = 10_000
"""Requests for one handler that nats-py holds for us; further ones are dropped, and their clients refused."""
NICENESS = 5
"""Where CPU time is scarce, messages to clients come before the application's code, and that before the API."""
_log = logging.getLogger("fanline.handlers")


def main() -> int:
    """Answer requests until SIGTERM. Returns the exit code: 1 if it cannot, as reported."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=HandlersOrder)
    name_process("handlers", "(fanline.workers.handlers.main)")
    os.nice(NICENESS)
    configure_logging("handlers")
    cast("TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)  # what the application prints, when it does
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # the text; the application's modules are in the working directory
    try:
        functions, setups = _load(order.handlers), load_setups(order.settings.hooks.handlers)
        asyncio.run(serve(order, functions, setups))
    except (LoadError, nats.errors.Error, OSError) as error:
        report(order.report_fd, str(error) or type(error).__name__)
        return 1
    return 0


def _load(texts: tuple[str, ...]) -> dict[Handler, Function | None]:
    """The handlers with their functions, None for webhooks. Raises LoadError."""
    handlers = [parse_handler(text) for text in texts]
    return {each: load_function(each) if each.form is HandlerForm.FUNCTION else None for each in handlers}


async def serve(order: HandlersOrder, functions: dict[Handler, Function | None], setups: dict[str, Function]) -> None:
    """Answer until SIGTERM. Raises nats.errors.Error or OSError if NATS cannot be reached, LoadError if `setups`, which
    register the application's hooks, do not do so.
    """
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    settings = order.settings.handlers
    webhooks = Webhooks(settings.timeout, settings.retries)
    desk = Desk(functions, lambda: FunctionCalls(settings.timeout, _end_stuck), webhooks)
    client = await connect(order.settings, _end_closed)
    answering = _Answering(client, desk.answer)
    for subject in desk.subjects:
        await client.subscribe(subject, queue=QUEUE, cb=answering.take, pending_msgs_limit=_MOST_WAITING)
    hooked = await _serve_hooks(client, setups, settings.timeout)
    office = PostOffice(client, order.settings.webhooks, order.settings.engine.bucket_bytes)
    if order.settings.webhooks:
        await office.start()
        take = _Answering(client, office.dead_letters.answer).take
        await client.subscribe(DEAD_SUBJECT, queue=DEAD_QUEUE, cb=take)
    await answer_counters(client, lambda: [each.counters for each in hooked], office.counters)
    await client.flush()
    report(order.report_fd, READY)
    watching = [asyncio.create_task(each) for each in (_beat(order.report_fd), watch_loop(order.settings.hang_timeout))]
    await stopped.wait()
    for task in watching:
        task.cancel()
    await office.aclose()
    await webhooks.aclose()
    _leave()


async def _serve_hooks(client: Client, setups: dict[str, Function], seconds: float) -> list[Hooked]:
    """Have all functions that the setups register receive events and answer clients. LoadError."""
    made = list[Hooked]()
    if not setups:
        return made
    hooks = await set_up(setups, Saying(client))

    def make(name: str, function: Function) -> Hooked:
        made.append(Hooked(name, function, seconds))
        return made[-1]

    await listen(client, tuple(setups), hooks, make)
    take = _Answering(client, HookDesk(hooks, make).answer).take
    subject = hooks_handler(list(setups)).subject
    await client.subscribe(subject, queue=QUEUE, cb=take, pending_msgs_limit=_MOST_WAITING)
    return made


class _Answering:
    """Takes messages from nats-py, which waits for each callback to return before it calls the next."""

    def __init__(self, client: Client, answer: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        """`answer`: the answer to what came on a subject."""
        self._client = client
        self._answer_to = answer
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, message: Msg) -> None:
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Msg) -> None:
        answer = await self._answer_to(message.subject, message.data)
        with suppress(nats.errors.Error):  # NATS is unreachable: the worker gets no answer, and refuses
            await self._client.publish(message.reply, answer)


async def _beat(report_fd: int) -> None:
    while True:
        beat(report_fd)
        await asyncio.sleep(BEAT_SECONDS)


def _end_stuck() -> None:
    _log.critical("calls of a handler that do not end hold all its places: this process ends, and is started again")
    _leave(1)


def _end_closed() -> None:
    _leave(1)  # the supervisor starts another process


def _leave(exit_code: int = 0) -> None:
    """End at once: threads may run the application's code forever."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    sys.exit(main())
