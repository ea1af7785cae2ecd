"""`fanline.publish` without NATS: through a server, over one WebSocket per process, kept by a thread.

It starts with the first message, and stays connected until the program ends.
"""

import asyncio
import logging
import os
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field

from fanline.client.arguments import dialect_of
from fanline.client.machine import commands
from fanline.client.machine.commands import Command
from fanline.client.message import Published
from fanline.client.shells.asyncio_shell import AsyncioShell
from fanline.client.shells.loop_thread import LoopThread
from fanline.client.token_source import TokenSource
from fanline.errors import ConnectionLost, ConnectionRefused, NotPublished, ServerError
from fanline.nats.thread import finish_too, lock
from fanline.producer.waiting import finish
from fanline.protocol.envelope import Envelope
from fanline.publishing.lane import DURABLE_SECONDS, NEVER_REACHED_SECONDS
from fanline.publishing.outgoing import EXIT_SECONDS

MAX_WAITING = 10_000
"""Messages of one thread that are not yet published."""
_RETRY_SECONDS = 0.25
_log = logging.getLogger("fanline")
_publishers: dict[tuple[int, str, str | None], "WebSocketPublisher"] = {}  # by process, URL and token; under the lock


@dataclass(slots=True, eq=False)
class Posting:
    """One message, from the call to its end."""

    command: Command[Published]
    since: float = field(default_factory=time.monotonic)
    done: Future[None] = field(default_factory=Future)

    @property
    def until(self) -> float:
        return self.since + DURABLE_SECONDS

    def refuse(self, why: object) -> None:
        """It is certain that it is not published."""
        finish(self.done, NotPublished(f"the message on {self.command.envelope.channel} was not published: {why}"))

    def give_up(self, why: object) -> None:
        """It was sent, and may have arrived."""
        what = f"it is not known whether the message on {self.command.envelope.channel} was published"
        finish(self.done, NotPublished(f"{what}: {why}"))


def publish_over_websocket(channel: str, envelope: Envelope, url: str, token: str | None) -> Future[None]:
    """Publish this through the server at a URL. Returns at once; the future fails with NotPublished."""
    posting = Posting(
        commands.publish(
            channel,
            envelope.data,
            event=envelope.event,
            x=envelope.extra,
            to_others=False,
            deduplication_id=envelope.deduplication_id,
        )
    )
    posting.done.set_running_or_notify_cancel()  # so that a wait that is cancelled does not cancel it for all
    key = (os.getpid(), url, token)
    try:
        with lock():
            publisher = _publishers.get(key)
            if publisher is None:
                publisher = _publishers[key] = WebSocketPublisher(url, token)
                finish_too(publisher.finish)
            publisher.add(posting)
    except (OSError, RuntimeError) as error:  # too many open files, no more threads, or a process patched by gevent
        posting.refuse(error)
    return posting.done


class WebSocketPublisher:
    """Carries the messages of this process to one server, in the order of the calls."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._tokens = TokenSource(token)
        self._thread = LoopThread("fanline publisher")
        self._waiting: set[Posting] = set()  # what is not done; under the lock
        self._queue: asyncio.Queue[Posting] = asyncio.Queue()
        self._sending: set[asyncio.Task[None]] = set()
        self._shell: AsyncioShell | None = None
        self._life: AbstractAsyncContextManager[None]
        self._failed: tuple[float, Exception] = (float("-inf"), ConnectionLost("never connected"))
        self._thread.submit(self._carry)

    def add(self, posting: Posting) -> None:
        """Publish this too. The caller holds the lock."""
        if len(self._waiting) >= MAX_WAITING:
            posting.refuse(f"{MAX_WAITING} messages are waiting for the server already: wait for some of them")
            return
        self._waiting.add(posting)
        posting.done.add_done_callback(lambda _: self._release(posting))
        self._thread.call_soon(lambda: self._queue.put_nowait(posting))

    def _release(self, posting: Posting) -> None:
        with lock():
            self._waiting.discard(posting)

    def finish(self) -> None:
        """The program ends: publish what is left, within a bound."""
        with lock():
            left = list(self._waiting)
        wait_for([posting.done for posting in left], EXIT_SECONDS)
        with suppress(Exception):
            self._thread.run(self._close, timeout=1.0)
        self._thread.stop()
        for posting in left:
            posting.give_up("the program has ended")

    # --- in the thread -------------------------------------------------------------------------------------------

    async def _carry(self) -> None:
        while True:
            posting = await self._queue.get()
            try:
                shell = await self._connected(posting.since)
            except Exception as error:  # noqa: BLE001  # a fault in here must not end the others
                posting.refuse(error)
            else:
                task = asyncio.create_task(self._send(shell, posting))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def _send(self, shell: AsyncioShell, posting: Posting) -> None:
        try:
            async with asyncio.timeout(posting.until - time.monotonic()):
                await shell.request(posting.command)
        except TimeoutError:
            posting.give_up(f"the server has not answered after {DURABLE_SECONDS:g} seconds")
        except ConnectionLost as error:
            if error.final:  # it was never sent
                posting.refuse(error)
            else:
                posting.give_up(error)
        except ServerError as error:
            posting.refuse(error)
        else:
            finish(posting.done, None)

    async def _connected(self, since: float) -> AsyncioShell:
        """The client. Raises what keeps it from connecting: nothing but silence and closed doors is tried again."""
        if self._shell is not None and self._shell.machine.error is None:
            return self._shell
        failed_at, error = self._failed
        if since <= failed_at:
            raise error
        while True:
            try:
                return await self._open()
            except (ConnectionLost, ConnectionRefused) as reason:
                may_pass = isinstance(reason, ConnectionRefused) and reason.status is None
                if not may_pass or time.monotonic() > since + NEVER_REACHED_SECONDS:
                    self._failed = (time.monotonic(), reason)
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    async def _open(self) -> AsyncioShell:
        await self._close()
        shell = AsyncioShell(self._url, dialect_of("json"), self._tokens, _tell)
        life = shell.live()
        await life.__aenter__()
        self._shell, self._life = shell, life
        return shell

    async def _close(self) -> None:
        if self._shell is not None:
            self._shell = None
            await self._life.__aexit__(None, None, None)


def _tell(sentence: str) -> None:
    _log.info("%s", sentence)
