"""A job in a process of its own, which reports by the SDK, and the viewers of its task."""

import subprocess
import sys
from functools import partial

import trio

from fanline.engine.cluster.shares import share_of
from tests.faults.crowd.job import line
from tests.faults.findings import JobEnd
from tests.support.durable.resuming_client import CBOR, JSON
from tests.support.servers.serve import Serve, wait_until
from tests.support.tasks.viewers import ResumingViewer, has_ended

_END_SECONDS = 40.0


class WatchedJob:
    """One task with a viewer on each worker, in JSON and CBOR by turns."""

    def __init__(self, serve: Serve, name: str) -> None:
        self.channel = f"task:{name}"
        self.share = share_of(self.channel)
        direct = serve.where == ("127.0.0.1", serve.port)  # otherwise nobody can tell which worker has a connection
        self.viewers = [
            ResumingViewer(serve, self.channel, (JSON, CBOR)[number % 2], worker if direct else None)
            for number, worker in enumerate(serve.worker_pids())
        ]
        self._command = [sys.executable, "-P", "-m", "tests.faults.crowd.job", name]
        self._environ = serve.environ
        self.pid = 0
        """The process id of the job, once it runs."""
        self._closing = trio.Event()
        self._lines: int | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the job until `close`; started as soon as its first viewers have it."""
        async with trio.open_nursery() as nursery:
            process = await trio.lowlevel.open_process(
                self._command, env=self._environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            self.pid = process.pid
            try:
                for viewer in self.viewers:
                    await nursery.start(viewer.run)
                task_status.started()
                await self._closing.wait()
                await self._finish(process)
            finally:
                await _end(process)
                nursery.cancel_scope.cancel()

    async def _finish(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.aclose()
        with trio.move_on_after(_END_SECONDS):
            said = b"".join([data async for data in process.stdout])
            self._lines = int(said)
            for viewer in self.viewers:
                await wait_until(partial(has_ended, viewer), _END_SECONDS)

    def close(self) -> None:
        """Have the job end, and `run` with it."""
        self._closing.set()

    def ends(self) -> list[JobEnd]:
        """What each viewer has."""
        expected = [line(number + 1) for number in range(self._lines or 0)]
        return [
            JobEnd(
                f"viewer {number} of {self.channel}",
                "without an end" if self._lines is None else str(viewer.snapshot.state),
                sum(viewer.lines.get((viewer.snapshot.attempt, place)) != text for place, text in enumerate(expected)),
                viewer.gaps,
                viewer.faults,
            )
            for number, viewer in enumerate(self.viewers)
        ]


async def _end(process: trio.Process) -> None:
    process.kill()
    with trio.CancelScope(shield=True):
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()
        await process.wait()
