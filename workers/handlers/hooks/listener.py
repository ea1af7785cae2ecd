"""Hears events, and calls the functions that are registered for them. Nobody waits for these."""

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
from fanline.workers.handlers.hooks.hooked import Hooked

_AT_ONCE = 1024
"""Calls for events that are under way or wait for their place; events beyond wait in nats-py."""
MOST_WAITING = 10_000
"""Events of one name that nats-py holds for us; further ones are dropped."""
_log = logging.getLogger("fanline.hooks")


class EventListener:
    """`setups`: the names of the functions that have registered; of several servers with the same ones, one hears each
    event.
    """

    def __init__(self, setups: tuple[str, ...], hooks: Hooks, make: Callable[[str, Function], Hooked]) -> None:
        self._queue = f"fanline-hooks-{blake2s(repr(setups).encode(), digest_size=8).hexdigest()}"
        self._hooked = {name: [make(name, each) for each in functions] for name, functions in hooks.events.items()}
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = LogPace()

    async def start(self, client: Client) -> None:
        """Hear events from now on."""
        for name in self._hooked:
            await client.subscribe(
                event_subject(name), queue=self._queue, cb=self._take, pending_msgs_limit=MOST_WAITING
            )

    async def _take(self, message: Msg) -> None:
        try:
            event = decode_event(message.data)
        except BadEventError as error:  # any client of NATS that is not a producer may publish there
            if self._pace.allows(message.subject):
                _log.warning("an event on %s: %s", message.subject, error)
            return
        for hooked in self._hooked.get(message.subject.rpartition(".")[2], ()):
            await self._room.acquire()
            task = asyncio.create_task(self._call(hooked, event))
            self._tasks.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._done)

    async def _call(self, hooked: Hooked, event: ServerEvent) -> None:
        with suppress(HandlerError, HookRefusal):  # logged, or of no interest: nobody waits for an answer
            await hooked.call(event)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
