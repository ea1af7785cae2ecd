"""Says in the log when the store is full, and when it no longer is; once each."""

import logging

from fanline.engine.bus.errors import StorageFullError

_log = logging.getLogger("fanline.bus")


class FullStore:
    """`reports`: False if the supervisor says so, as of the embedded server."""

    def __init__(self) -> None:
        self.reports = True
        self._full = False

    def hear(self, error: StorageFullError | None) -> None:
        """The store had no room for a message; None: it had."""
        was_full, self._full = self._full, error is not None
        if self.reports and error is not None and not was_full:
            _log.error("%s; publishers get storage_full until there is room", error)
        elif self.reports and was_full and not self._full:
            _log.info("the store has room again")
