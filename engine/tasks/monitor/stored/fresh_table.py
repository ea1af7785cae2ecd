"""The table of running tasks for a viewer who comes: with every task that was stored before.

The table is published at most once a second, and later still where the workers are several. Whoever asks for it does
not wait for that: all workers take what is stored, leave their rows, and then the publisher publishes at once. Viewers
who come together are served together, and nothing of this happens while none comes.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import trio

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.protocol.nats.names import system_subject

SUBJECT = system_subject("tasks", "table")
ANSWER_SECONDS = 1.0
PATIENCE_SECONDS = 3.0
"""Then the table stays as it is: a worker is frozen, or its shares are still on their way to another one."""
_AGAIN_SECONDS = 0.1
_RETRY_SECONDS = 1.0
COMPLETE = b"complete"
_LEAVE, _PUBLISH = b"leave", b"publish"


class FreshTable:
    """Asks all workers, this one included. `live`: their ids."""

    def __init__(self, bus: Bus, live: Callable[[], Iterable[str]]) -> None:
        self._bus = bus
        self._live = live
        self._begun = 0
        self._asking = trio.Lock()

    async def renew(self) -> None:
        """Have the newest table show what was stored before; as it is, if the workers do not answer."""
        wanted = self._begun + 1  # a round that is under way may have looked already
        async with self._asking:
            if self._begun >= wanted:
                return
            self._begun += 1
            with trio.move_on_after(PATIENCE_SECONDS):
                while not await self._ask():  # noqa: ASYNC110  # no event tells when a share has arrived
                    await trio.sleep(_AGAIN_SECONDS)

    async def _ask(self) -> bool:
        """Whether the tasks of all shares are in the table now."""
        try:
            await self._bus.ask_all(SUBJECT, _LEAVE, ANSWER_SECONDS, len({*self._live()}))
            return await self._bus.ask(SUBJECT, _PUBLISH, ANSWER_SECONDS) == COMPLETE
        except BusError:
            return False


class TableAnswerer:
    """Answers for one worker. `catch_up()`: take everything that is stored by now; `update()`: publish the table, or
    leave the rows, if they have changed, and return whether the table has the tasks of all shares; `publishes()`:
    whether this worker is the publisher. BusError from the first two.
    """

    def __init__(
        self,
        bus: Bus,
        catch_up: Callable[[], Awaitable[None]],
        update: Callable[[], Awaitable[bool]],
        publishes: Callable[[], bool],
    ) -> None:
        self._bus = bus
        self._catch_up = catch_up
        self._update = update
        self._publishes = publishes

    async def run(self) -> None:
        """Answer for ever."""
        async with trio.open_nursery() as nursery:

            def take(payload: bytes, respond: Respond) -> None:
                if payload == _LEAVE or self._publishes():
                    nursery.start_soon(self._answer, payload, respond)

            while True:
                try:
                    await self._bus.answer(SUBJECT, take)
                except BusError:
                    await trio.sleep(_RETRY_SECONDS)
                else:
                    await trio.sleep_forever()

    async def _answer(self, payload: bytes, respond: Respond) -> None:
        with suppress(BusError), trio.move_on_after(ANSWER_SECONDS):
            if payload == _LEAVE:
                await self._catch_up()
            complete = await self._update() if (payload == _PUBLISH) is self._publishes() else False
            respond(COMPLETE if complete else b"")
