"""Receives events, and calls the functions that are registered for them. Nothing waits for these calls."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2s

from nats.aio.client import Client
from nats.aio.msg import Msg

from fanline.engine.log_pace import LogPace
from fanline.protocol.handlers import HandlerError
from fanline.protocol.hooks.events import BadEventError, ServerEvent, decode_event, event_subject
from fanline.protocol.hooks.hooks import HookRefusal, Hooks
from fanline.workers.handlers.functions import Function
from fanline.workers.handlers.hooks.hooked import PLACES, Hooked

MOST_WAITING = 10_000
"""Events that nats-py holds for one function; further ones are dropped."""
_log = logging.getLogger("fanline.hooks")


async def listen(
    client: Client, setups: tuple[str, ...], hooks: Hooks, make: Callable[[str, Function], Hooked]
) -> None:
    """Deliver events to all functions from now on. `setups`: the names of those that have registered them.

    Each function has a subscription, and with it a queue, of its own, so none waits for a slow one. Each event goes to
    one of several servers with the same setups.
    """
    digest = blake2s(repr(setups).encode(), digest_size=8).hexdigest()
    for event, functions in hooks.events.items():
        for number, function in enumerate(functions):
            queue, listener = f"fanline-hooks-{digest}-{number}", EventListener(make(event, function))
            subject = event_subject(event)
            await client.subscribe(subject, queue=queue, cb=listener.take, pending_msgs_limit=MOST_WAITING)


class EventListener:
    """Calls one function."""

    def __init__(self, hooked: Hooked) -> None:
        self._hooked = hooked
        self._room = asyncio.Semaphore(PLACES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = LogPace()

    async def take(self, message: Msg) -> None:
        """Begin a call. nats-py holds the next messages until this returns."""
        try:
            event = decode_event(message.data)
        except BadEventError as error:  # programs other than producers may publish there
            if self._pace.allows():
                _log.warning("a message on %s is not an event: %s", message.subject, error)
            return
        await self._room.acquire()
        task = asyncio.create_task(self._call(event))
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._done)

    async def _call(self, event: ServerEvent) -> None:
        with suppress(HandlerError, HookRefusal):  # logged, or of no interest: nothing waits for an answer
            await self._hooked.call(event)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
