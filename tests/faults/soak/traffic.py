"""What users do in one round of a soak: they come, resume, publish, run and watch tasks, call, and go."""

import random
from functools import partial

import trio

from tests.faults.crowd.watched_job import WatchedJob
from tests.support.durable.publisher import AckedPublisher
from tests.support.durable.resuming_client import CBOR, JSON, ResumingClient
from tests.support.raw_client import connect
from tests.support.servers.serve import Serve, wait_until
from tests.support.tasks.producer import NatsProducer
from tests.support.tasks.viewers import ResumingViewer

_VIEWERS, _CHANNELS, _PUBLISHERS, _TASKS = 24, 3, 2, 4
_PAUSE = 0.05
_LOST = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel)
_VERBS = ("status", "approve", "cancel", "input")


class Round:
    """One round; `run` returns when all its clients have left."""

    def __init__(self, serve: Serve, number: int, seed: int) -> None:
        self.acknowledged = self.calls = self.gaps = 0
        self.faults: list[str] = []
        """What viewers were handed that does not follow on what they had."""
        self._serve = serve
        self._number = number
        self._chance = random.Random(f"{seed}/round {number}")
        self._begun = trio.current_time()
        self._viewers: list[ResumingClient] = []
        self._publishers: list[AckedPublisher] = []

    async def run(self, seconds: float) -> None:
        channels = [f"doc:soak-{self._number}-{number}" for number in range(_CHANNELS)]
        job = WatchedJob(self._serve, f"job-{self._number}")
        async with trio.open_nursery() as publishing:
            for number in range(_PUBLISHERS):
                self._publish(publishing, f"r{self._number}-{number}", channels[number])
            await wait_until(lambda: any(publisher.acknowledged for publisher in self._publishers))
            with trio.move_on_after(seconds):
                await self._audience(channels, job, seconds)
            publishing.cancel_scope.cancel()
        self._sum_up()

    async def _audience(self, channels: list[str], job: WatchedJob, seconds: float) -> None:
        """All but the publishers."""
        async with trio.open_nursery() as nursery:
            for number in range(_VIEWERS):
                nursery.start_soon(self._come_and_go, channels[number % _CHANNELS], number, seconds)
            for number in range(_TASKS):
                nursery.start_soon(self._task, f"task:soak-{self._number}-{number}", seconds)
            nursery.start_soon(job.run)
            await trio.sleep(seconds * 0.6)
            job.close()

    def _publish(self, nursery: trio.Nursery, name: str, channel: str) -> None:
        publisher = AckedPublisher(name, channel, 100_000)
        self._publishers.append(publisher)
        nursery.start_soon(partial(publisher.run, *self._serve.where, _PAUSE))

    async def _come_and_go(self, channel: str, number: int, seconds: float) -> None:
        """A viewer who joins late, loses the connection now and then, and leaves early."""
        chance = random.Random(self._chance.random())
        await trio.sleep(chance.uniform(0, seconds / 3))
        viewer = ResumingClient(
            *self._serve.where, channel, {"d": {"start": True}}, seed=number, subprotocol=chance.choice((JSON, CBOR))
        )
        self._viewers.append(viewer)
        with trio.move_on_after(chance.uniform(seconds / 3, seconds)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(viewer.run)
                while True:
                    await trio.sleep(chance.uniform(0.5, 3))
                    await viewer.cut()

    async def _task(self, channel: str, seconds: float) -> None:
        """A task with a viewer and somebody who calls; it ends in the round, but for one in four."""
        async with trio.open_nursery() as nursery:
            producer = NatsProducer(self._serve, channel)
            await nursery.start(producer.run)
            nursery.start_soon(ResumingViewer(self._serve, channel, self._chance.choice((JSON, CBOR))).run)
            nursery.start_soon(self._call, channel)
            await producer.say("task_started", title="Soak")
            until = trio.current_time() + seconds / 2
            while trio.current_time() < until:
                await producer.say("task_output", lines=["a line of output"] * 5)
                await producer.say("task_progress", message="on the way")
                await producer.say("task_confirmation_required", ask=f"q{trio.current_time()}", text="Go on?")
                await trio.sleep(_PAUSE)
            if self._chance.random() < 0.75:
                await producer.say("task_completed", result={"n": 1})
            nursery.cancel_scope.cancel()

    async def _call(self, channel: str) -> None:
        """Calls of all kinds, whether they fit or not."""
        while True:
            try:
                async with connect(*self._serve.where) as client:
                    while True:
                        verb = self._chance.choice(_VERBS)
                        await client.ask({"t": "call", "c": channel, "i": verb, "e": verb, "d": {"by": "ann"}})
                        self.calls += 1
                        await trio.sleep(_PAUSE)
            except _LOST:
                await trio.sleep(_PAUSE)

    def _sum_up(self) -> None:
        self.acknowledged = sum(len(publisher.acknowledged) for publisher in self._publishers)
        self.gaps = sum(len(viewer.gaps) for viewer in self._viewers)
        self.faults = [fault for viewer in self._viewers for fault in viewer.faults]
        self.repeats = sum(viewer.repeats for viewer in self._viewers)
