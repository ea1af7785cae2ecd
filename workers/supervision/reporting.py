"""A process of ours that reports on a pipe.

First comes one line, `READY` or the reason why the process cannot serve; then follows a beat every second.
"""

import logging
import os
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import NamedTuple

import msgspec
import trio

from fanline.workers.configuration.loading import ENV_PREFIX
from fanline.workers.errors import ServeError
from fanline.workers.supervision.child import Child

READY = "ready"
"""The line of a process that serves; any other line is the reason why it cannot."""

BEAT = b"."
BEAT_SECONDS = 1.0

_log = logging.getLogger("fanline.supervisor")


class Order(NamedTuple):
    """What a process is started with. It contains secrets, so it never appears in arguments or environment."""

    message: msgspec.Struct
    """As JSON on its stdin."""
    descriptors: tuple[int, ...]
    """The descriptors that it inherits, besides its end of the pipe."""


class ReportingProcess(ABC):
    """A service (service.py); one that gives no beat for `hang_seconds` is killed and replaced."""

    def __init__(self, name: str, command: tuple[str, ...], *, stop_seconds: float, hang_seconds: float) -> None:
        self.name = name
        self.stop_seconds = stop_seconds
        self._command = command
        self._hang_seconds = hang_seconds

    @abstractmethod
    def order(self, report_fd: int) -> Order:
        """What the next process is started with; `report_fd` is its end of the pipe."""
        ...

    async def prepare(self) -> None:  # noqa: B027  # no service has to
        """Nothing to prepare."""

    def launch(self) -> Child:
        our_end, its_end = os.pipe()
        self._reports = trio.lowlevel.FdStream(our_end)
        try:
            order = self.order(its_end)
            return Child(
                self._command,
                stdin=msgspec.json.encode(order.message),
                pass_fds=(*order.descriptors, its_end),
                environ={key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)},
                stdout=sys.stderr.fileno(),  # our stdout has one line, the ready line
            )
        except OSError:
            self._reports.close()
            raise
        finally:
            os.close(its_end)

    async def wait_ready(self, child: Child) -> None:
        said = b""
        while b"\n" not in said and (data := await self._reports.receive_some()):  # ends with the process
            said += data
        sentence = said.decode(errors="replace").partition("\n")[0]
        if sentence == READY:
            return
        if not sentence:
            await child.wait()
            sentence = f"ended before it was ready ({child.ending})"
        raise ServeError(f"{self.name}: {sentence}")

    async def wait_ended(self, child: Child) -> None:
        while beat := await self._next_beat():
            pass
        if beat is None:
            _log.warning("%s (pid %d) hung for %g s: killing it", self.name, child.pid, self._hang_seconds)
            child.kill()
        await child.wait()

    async def _next_beat(self) -> bytes | None:
        """What the process wrote. b"" if it has ended, None if it hangs."""
        # In two halves: after this process itself was stopped, the first one has expired at once, and the second reads
        # what has come meanwhile.
        for _ in range(2):
            with trio.move_on_after(self._hang_seconds / 2):
                return await self._reports.receive_some()
        return None

    def release(self) -> None:
        self._reports.close()


def beat(report_fd: int) -> None:
    """In the process: signal that its loop runs. A supervisor that is stopped or gone must not block it."""
    os.set_blocking(report_fd, False)
    with suppress(BlockingIOError, BrokenPipeError):
        os.write(report_fd, BEAT)


def report(report_fd: int, sentence: str) -> None:
    """In the process: write the first line, `READY` or the reason why it cannot serve."""
    os.write(report_fd, f"{' '.join(sentence.split())}\n".encode())


async def keep_beating(report_fd: int) -> None:
    """In a process with a Trio loop: `beat` every second."""
    while True:
        beat(report_fd)
        await trio.sleep(BEAT_SECONDS)
