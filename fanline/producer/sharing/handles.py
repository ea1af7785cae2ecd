"""The handles of one task, in the process that runs it: nothing, until the first is wanted."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fanline.producer.sharing.wire import cancel_line, read_report
from fanline.producer.values.amount import Complain

if TYPE_CHECKING:
    from fanline.producer.sharing.server import HandleServer


class Handles:
    """`report(verb, arguments)` gets what they report. Not thread-safe, but for `report`."""

    def __init__(self, report: Callable[[str, list[Any]], None], complain: Complain) -> None:
        self._report = report
        self._complain = complain
        self._server: HandleServer | None = None
        self._news: bytes | None = None

    def address(self) -> str:
        """Where a handle can report; "" if it cannot."""
        if self._server is None:
            from fanline.producer.sharing.server import HandleServer  # few jobs have handles

            try:
                self._server = HandleServer(self._take)
            except (OSError, RuntimeError) as error:  # no file descriptor, no thread
                self._complain("handles", f"other processes cannot report to it: {error}")
                return ""
            if self._news is not None:
                self._server.tell(self._news)
        return self._server.address

    def cancel(self, by: str | None) -> None:
        """Tell every handle that the task is cancelled."""
        self._news = cancel_line(by)
        if self._server is not None:
            self._server.tell(self._news)

    def close(self) -> None:
        """Take what has been reported up to now; nothing is taken afterwards."""
        if self._server is not None:
            self._server.close()

    def _take(self, line: bytes) -> None:
        report = read_report(line)
        if report is not None:
            with suppress(TypeError):  # a number of arguments that no handle gives
                self._report(*report)
