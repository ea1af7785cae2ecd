"""The bystanders of a fault: people and programs that go about their business on a server, whatever happens to it."""

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from tests.faults.crowd.inbox import InboxOwner
from tests.faults.crowd.notes import NotePublisher
from tests.faults.crowd.watched_job import WatchedJob
from tests.faults.findings import Observed, Watched, name_of
from tests.support.durable.publisher import AckedPublisher
from tests.support.durable.resuming_client import CBOR, JSON, ResumingClient
from tests.support.servers.serve import Serve, wait_until

CHANNEL, INBOX = "doc:bystanders", "user:bystander"
PAUSE = 0.03
"""Seconds between two messages of one publisher."""
_VIEWERS = 8
_ENOUGH = 100_000  # messages that no publisher gets to
_OPEN_SECONDS, _JOB_SECONDS = 30.0, 40.0


class Crowd:
    """Publishers over WebSocket and NATS, viewers of their channel, an inbox with its owner, and a job with viewers."""

    def __init__(self, serve: Serve, seed: int) -> None:
        where = serve.where
        direct = where[0] == "127.0.0.1"  # what is on the way to another host knows one client address
        self.publishers = [AckedPublisher(name, CHANNEL, _ENOUGH, seed) for name in ("ws-a", "ws-b")]
        self.notes = NotePublisher(serve, CHANNEL)
        self.mail = AckedPublisher("mail", INBOX, _ENOUGH, seed)
        self.owner = InboxOwner(serve, INBOX)
        self.job = WatchedJob(serve, "bystander")
        self.viewers = [
            ResumingClient(
                *where,
                CHANNEL,
                {"o": 0},
                source=f"127.0.0.{2 + number if direct else 1}",
                seed=seed + number,
                subprotocol=dialect,
            )
            for number, dialect in enumerate((JSON, CBOR) * (_VIEWERS // 2))
        ]
        self.complaints: list[str] = []
        self._where = where
        self._publishing = trio.CancelScope()

    async def open(self, nursery: trio.Nursery) -> None:
        """Start everything; returns when each publisher has had an acknowledgement."""
        with trio.fail_after(_OPEN_SECONDS):
            for number, viewer in enumerate(self.viewers):
                nursery.start_soon(self._noted, f"viewer {number}", viewer.run)
            await wait_until(lambda: all(viewer.answers for viewer in self.viewers), _OPEN_SECONDS)
            await nursery.start(self.owner.run)
            await nursery.start(self.job.run)
            nursery.start_soon(self._publish)
            await wait_until(lambda: all(count for count in self.progress().values()), _OPEN_SECONDS)

    async def _publish(self) -> None:
        with self._publishing:
            async with trio.open_nursery() as nursery:
                for publisher in (*self.publishers, self.mail):
                    run = partial(publisher.run, *self._where, PAUSE)
                    nursery.start_soon(self._noted, "a publisher over WebSocket", run)
                nursery.start_soon(self._noted, "the publisher over NATS", partial(self.notes.run, PAUSE))

    async def _noted(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """What ends a bystander is a promise that was not kept; the others go on."""
        try:
            await run()
        except Exception as error:  # noqa: BLE001
            self.complaints.append(f"{name}: {_innermost(error)!r}"[:200])

    def progress(self) -> dict[str, int]:
        """Publisher -> how many of its messages are acknowledged."""
        counts = {f"ws {number}": len(one.acknowledged) for number, one in enumerate(self.publishers)}
        return counts | {"nats": len(self.notes.acknowledged), "mail": len(self.mail.acknowledged)}

    async def recover(self, seconds: float) -> None:
        """Wait until each publisher gets acknowledgements again, for `seconds` seconds at most."""
        before = self.progress()
        with trio.move_on_after(seconds):
            await wait_until(lambda: all(count > before[name] + 1 for name, count in self.progress().items()), seconds)
            return
        idle = [name for name, count in self.progress().items() if count <= before[name] + 1]
        self.complaints.append(f"{seconds:g} s after the fault nothing is acknowledged to {', '.join(idle)}")

    async def settle(self, seconds: float) -> None:
        """Publish no more, and wait until everybody has everything, or until it would have come."""
        await trio.sleep(PAUSE)
        self._publishing.cancel()
        self.job.close()
        with trio.move_on_after(seconds):
            while self._missing():
                await trio.sleep(0.05)
        with trio.move_on_after(_JOB_SECONDS):
            while any(end.state != "completed" or end.missing_lines for end in self.job.ends()):
                await trio.sleep(0.05)

    def _missing(self) -> bool:
        told = self._acknowledged()
        return any(set(told[one.channel]) - set(one.seen) for one in self._watched())

    def observed(self) -> Observed:
        refused = Counter(
            refusal["code"] for publisher in (*self.publishers, self.mail) for refusal in publisher.refusals
        )
        return Observed(self._acknowledged(), self._watched(), self.job.ends(), dict(refused), list(self.complaints))

    def _acknowledged(self) -> dict[str, list[str]]:
        names = [name for publisher in self.publishers for name in publisher.acknowledged]
        return {CHANNEL: names + self.notes.acknowledged, INBOX: self.mail.acknowledged}

    def _watched(self) -> list[Watched]:
        found = [
            Watched(
                f"viewer {number}",
                CHANNEL,
                [name_of(data) for data in viewer.data],
                viewer.repeats,
                len(viewer.gaps),
                viewer.faults,
                viewer.longest_silence,
            )
            for number, viewer in enumerate(self.viewers)
        ]
        return [*found, Watched("the inbox", INBOX, list(self.owner.seen), self.owner.repeats, self.owner.gaps)]


def _innermost(error: BaseException) -> Any:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
