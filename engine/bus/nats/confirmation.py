"""What a NATS server has confirmed: one PING for everything that is sent in one pass of the scheduler."""

import trio

from fanline.engine.bus.interface import BusError


class Confirmation:
    """Of all commands that were queued before it was sent, and since the one before it."""

    __slots__ = ("_done", "_failure", "denied", "is_done")

    def __init__(self) -> None:
        self.is_done = False
        """The server has processed the commands: each is in effect, or its subject is among the denied ones."""
        self.denied: dict[str, str] = {}
        """Subject -> a sentence that says so; under "", of a command that the server refused without naming it."""
        self._done = trio.Event()
        self._failure: str | None = None

    def finish(self, failure: str | None) -> None:
        """The server has confirmed the commands; with a failure, it is not known what became of them."""
        self.is_done = failure is None
        self._failure = failure
        self._done.set()

    def denial(self, subject: str) -> str | None:
        """Why the commands on a subject are not in effect, or perhaps not."""
        return self.denied.get(subject) or self.denied.get("")

    async def wait(self, subject: str) -> None:
        """Wait for it. BusError if the server denies this subject, or the connection is lost before it confirms."""
        await self._done.wait()
        failure = self._failure or self.denial(subject)
        if failure is not None:
            raise BusError(failure)
