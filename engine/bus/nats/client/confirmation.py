"""What a NATS server has confirmed: one PING for everything that is sent in one pass of the scheduler."""

import trio

from fanline.engine.bus.errors import BusError
from fanline.protocol.nats.replies import Complaint, ComplaintKind


class Confirmation:
    """Confirms the commands that were queued before its PING, and after the one before that."""

    __slots__ = ("_denials", "_done", "_failure", "is_done")

    def __init__(self) -> None:
        self.is_done = False
        """The server has processed the commands: each is in effect, or denied."""
        self._denials: dict[tuple[ComplaintKind, str], str] = {}
        self._done = trio.Event()
        self._failure: str | None = None

    def finish(self, failure: str | None) -> None:
        """The server has confirmed the commands; with a failure, it is not known what became of them."""
        self.is_done = failure is None
        self._failure = failure
        self._done.set()

    def deny(self, complaint: Complaint) -> None:
        """The server does not carry out one of the commands."""
        self._denials[complaint.kind, complaint.subject] = complaint.text

    def denial(self, kind: ComplaintKind, subject: str) -> str | None:
        """Why what is denied with `kind` is not in effect on a subject; it may be in effect if the server refused a
        command without naming it. A channel's publications and its subscription may be on one subject.
        """
        return self._denials.get((kind, subject)) or self._denials.get((ComplaintKind.COMMAND_REFUSED, ""))

    async def wait(self) -> None:
        """Wait until the server has processed the commands. BusError if the connection is lost before that."""
        await self._done.wait()
        if self._failure is not None:
            raise BusError(self._failure)

    async def wait_permitted(self, kind: ComplaintKind, subject: str) -> None:
        """Wait until a command is in effect. BusError also if the server denies it."""
        await self.wait()
        denial = self.denial(kind, subject)
        if denial is not None:
            raise BusError(denial)
