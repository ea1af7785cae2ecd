"""Delivers events to one webhook, in order, until each is accepted or given up.

An event is acknowledged to its stream only when the webhook has accepted it, or when it is stored among the events that
were given up. So a process that is killed loses none, and the next process may post some a second time.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from fanline.engine.hooks.settings import Webhook
from fanline.engine.log_pace import LogPace
from fanline.protocol.hooks.counters import WebhookCounters
from fanline.protocol.hooks.events import BadEventError, ServerEvent, decode_event
from fanline.protocol.nats.names import EVENTS_STREAM, dead_subject
from fanline.workers.handlers.posting.dead_letter import dead_letter
from fanline.workers.handlers.posting.poster import NotTakenError, Poster
from fanline.workers.handlers.posting.streams import ACK_SECONDS, consumer_name

MOST_EVENTS = 100
"""Of one request."""
MOST_BYTES = 256 * 1024
"""Of one request, unless a single event has more."""
_FETCH_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds between two tries
_AGAIN_SECONDS = 1.0  # after a fault of NATS
_log = logging.getLogger("fanline.webhooks")


class Letter(NamedTuple):
    """An event on its way."""

    message: Msg
    event: ServerEvent


class Postman:
    """`ensure`: creates what is missing in NATS. nats.errors.Error. `most_bytes()`: those of a
    message that NATS takes, with its headers.
    """

    def __init__(
        self,
        js: JetStreamContext,
        webhook: Webhook,
        poster: Poster,
        ensure: Callable[[], Awaitable[None]],
        most_bytes: Callable[[], int],
    ) -> None:
        self._js = js
        self._webhook = webhook
        self._poster = poster
        self._ensure = ensure
        self._most_bytes = most_bytes
        self._pace = LogPace()
        self._taken = self._failed = self._given_up = 0

    @property
    def counters(self) -> WebhookCounters:
        return WebhookCounters(
            webhook=self._poster.label, events=self._taken, failed=self._failed, given_up=self._given_up
        )

    async def run(self) -> None:
        """Work forever, and try again whatever NATS does."""
        while True:
            try:
                await self._work()
            except (nats.errors.Error, OSError) as error:
                if self._pace.allows("nats"):
                    _log.warning("the webhook %s: NATS: %s", self._poster.label, error or type(error).__name__)
            except Exception:  # noqa: BLE001  # our own fault, and that of one webhook only
                _log.exception("the webhook %s failed", self._poster.label)
            await asyncio.sleep(_AGAIN_SECONDS)
            with suppress(nats.errors.Error):  # the next round meets it, too
                await self._ensure()

    async def _work(self) -> None:
        source = await self._js.pull_subscribe_bind(consumer_name(self._webhook), EVENTS_STREAM)
        try:
            while True:
                try:
                    messages = await source.fetch(MOST_EVENTS, timeout=_FETCH_SECONDS)
                except TimeoutError:  # nats-py's own is one, too
                    await self._js.consumer_info(EVENTS_STREAM, consumer_name(self._webhook))  # is it still there?
                    continue
                await self._bring(messages)
        finally:
            await source.unsubscribe()

    async def _bring(self, messages: Sequence[Msg]) -> None:
        letters = [letter for message in messages if (letter := await self._open(message)) is not None]
        keeping = asyncio.create_task(_keep(letters))
        try:
            for batch in _batches(letters):
                await self._deliver(batch)
        finally:
            keeping.cancel()

    async def _open(self, message: Msg) -> Letter | None:
        try:
            return Letter(message, decode_event(message.data))
        except BadEventError as error:  # programs other than producers may publish there
            _log.error("a message on %s is not an event, and is dropped: %s", message.subject, error)
            await message.ack()
            return None

    async def _deliver(self, batch: Sequence[Letter]) -> None:
        """Post a batch until it is taken. If it is not taken in time, each event is posted by itself, unless nobody
        answers any more, and given up.
        """
        error = await self._insist(batch)
        if error is None:
            return
        for letter in batch:
            if error.answered:
                try:
                    await self._post([letter])
                    continue
                except NotTakenError as again:
                    error = again
            await self._give_up(letter, str(error))

    async def _insist(self, batch: Sequence[Letter]) -> NotTakenError | None:
        """Why a batch had to be given up; None if it was accepted."""
        now = asyncio.get_running_loop().time
        ends, pause = now() + self._webhook.give_up, _FIRST_PAUSE
        while True:
            try:
                await self._post(batch)
            except NotTakenError as error:
                if now() + pause > ends:
                    return error
                if self._pace.allows(str(error)):
                    _log.warning("the webhook %s: %s; it is tried again", self._poster.label, error)
            else:
                return None
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _post(self, letters: Sequence[Letter]) -> None:
        try:
            await self._poster.post([(letter.event, letter.message.data) for letter in letters])
        except NotTakenError:
            self._failed += 1
            raise
        self._taken += len(letters)
        for letter in letters:
            await letter.message.ack()

    async def _give_up(self, letter: Letter, reason: str) -> None:
        """Store an event where an operator can find it, and go on."""
        name, label, (message, event) = consumer_name(self._webhook), self._poster.label, letter
        dead = dead_letter(name, label, reason, event, message.data, self._most_bytes())
        if dead is None:
            _log.error("an event of %d bytes for the webhook %s is too large to be kept", len(message.data), label)
        else:
            await self._js.publish(dead_subject(name), dead.data, headers=dead.headers)
        self._given_up += 1
        await message.ack()
        if self._pace.allows("dead"):
            _log.error("the webhook %s does not accept events (%s): they are given up", label, reason)


async def _keep(letters: Sequence[Letter]) -> None:
    """Report, forever, that the events are still being worked on."""
    while True:
        await asyncio.sleep(ACK_SECONDS / 4)
        for letter in letters:
            with suppress(nats.errors.Error):  # it was acknowledged meanwhile, or NATS is unreachable
                await letter.message.in_progress()


def _batches(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    batch, size = list[Letter](), 0
    for letter in letters:
        if batch and size + len(letter.message.data) > MOST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(letter)
        size += len(letter.message.data)
    if batch:
        yield batch
