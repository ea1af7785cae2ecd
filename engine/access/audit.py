"""The audit log: who connected, who was refused, and who did what, as JSON lines.

It contains nothing of a token or of a message's data. Several workers append to one file: each line is one write, which
POSIX keeps whole. The system may rotate the file: a file that is gone, or was replaced, is reopened.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Any

import msgspec

from fanline.engine.access.identity import Identity
from fanline.engine.clock import unix_ms

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would hold the worker
_log = logging.getLogger("fanline.access")


class AuditEvent(StrEnum):
    """The `event` of a line. docs/reference/authentication.md lists them; a test compares."""

    CONNECTED = "connected"  # a client got in
    REFUSED = "refused"  # a handshake, a token or a command was refused; `code` says why
    AUTHENTICATED = "authenticated"  # a connection goes on with another token
    SUBSCRIBED = "subscribed"  # to `channel`
    PUBLISHED = "published"  # to `channel`
    CALLED = "called"  # `verb` on `channel`: a cancel, an answer; without a channel, a message that hooks answer
    REMOVED = "removed"  # a subscription to `channel` ended because its user was removed from it
    REVOKED = "revoked"  # a connection ended because its token was taken back
    MANAGED = "managed"  # `caller` had something done by the management API: `verb`, on `what`


class Audit:
    """One worker's. `path`: the file, "" for none; `tell`: where each line goes besides, without its line feed, None
    for nowhere. Without either nothing is done.
    """

    def __init__(self, path: str, worker: str, tell: Callable[[bytes], None] | None = None) -> None:
        self.enabled = bool(path) or tell is not None
        self._path = path
        self._tell = tell
        self._worker = worker
        self._file: int | None = None
        self._failing = False

    def record(self, event: AuditEvent, identity: Identity | None = None, **fields: Any) -> None:
        """Append a line; `fields` that are None are left out. A file that cannot be written is reported once."""
        if not self.enabled:
            return
        who = {} if identity is None else {"user": identity.user, "token_id": identity.token_id}
        line = {"ts": unix_ms(), "event": event, "worker": self._worker, **who, **fields}
        encoded = msgspec.json.encode({key: value for key, value in line.items() if value is not None})
        if self._tell is not None:
            self._tell(encoded)
        if self._path:
            self._write(encoded + b"\n")

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, line: bytes) -> None:
        try:
            os.write(self._opened(), line)
        except OSError as error:
            if not self._failing:
                _log.error("the audit log %s cannot be written: %s", self._path, error.strerror)
            self._failing = True
        else:
            self._failing = False

    def _opened(self) -> int:
        if self._file is not None and not _is_at(self._file, self._path):
            self.close()
        if self._file is None:
            self._file = os.open(self._path, _FLAGS, 0o600)
        return self._file


def _is_at(file: int, path: str) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(file), os.stat(path))  # noqa: PTH116  # twice as fast, for each line
    return False
