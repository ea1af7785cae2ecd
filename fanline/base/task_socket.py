"""The client's side of the socket on which `fanline run` serves its command (docs/reference/task-socket.md).

Light on purpose: a shell script starts a process for each line that it reports.
"""

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from fanline.errors import FanlineError

TASK_VARIABLE = "FANLINE_TASK"
SOCKET_VARIABLE = "FANLINE_SOCKET"
REPLY_SECONDS = 10.0
"""For how long `fanline run` may be too busy to reply to anything but a question."""
_CHUNK_BYTES = 1 << 16


class NoTask(FanlineError):  # noqa: N818  # reads as what was found
    """There is no task to report to; str() says why, and what to do."""


class RequestRefused(FanlineError):  # noqa: N818  # reads as what happened
    """The task does not take a request; `code` is that of the reply, str() its message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TaskSocket:
    """One connection to the task around this process. Blocking; for one thread at a time."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Connect. Raises NoTask."""
        path = environ.get(SOCKET_VARIABLE)
        if not path:
            raise NoTask(f"no task to report to: {SOCKET_VARIABLE} is not set; start the script with `fanline run`")
        self._socket = socket.socket(socket.AF_UNIX)
        self._received = b""
        try:
            self._socket.settimeout(REPLY_SECONDS)
            self._socket.connect(path)
            self._socket.settimeout(None)
        except OSError as error:
            self._socket.close()
            raise NoTask(f"no task to report to at {path}: {_reason(error)}") from None

    def close(self) -> None:
        """Close the connection. A question that is open on it is withdrawn."""
        self._socket.close()

    def send(self, request: Mapping[str, Any]) -> None:
        """Send a request. Without an `id` only a refusal is replied to. Raises OSError."""
        line = json.dumps(request, ensure_ascii=False)  # otherwise a text may be three times as long, and too long
        self._socket.sendall(line.encode(errors="replace") + b"\n")

    def request(self, verb: str, *, waits: bool = False, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its reply; `waits`: for as long as it takes. Fields that are None are left out.

        Raises NoTask and RequestRefused.
        """
        known = {name: value for name, value in fields.items() if value is not None}
        try:
            self._socket.settimeout(REPLY_SECONDS)
            with suppress(ConnectionError):  # one that is too long is refused before its end: the reply says so
                self.send({"verb": verb, "id": 1, **known})
            self._socket.settimeout(None if waits else REPLY_SECONDS)
            reply = self.receive()
        except OSError as error:
            raise NoTask(f"the task cannot be reached any more: {_reason(error)}") from None
        if reply is None:
            raise NoTask("the task has ended")
        if not reply.get("ok"):
            raise RequestRefused(str(reply.get("code")), str(reply.get("message")))
        return reply

    def receive(self) -> dict[str, Any] | None:
        """The next reply; None at the end of the connection. Raises OSError."""
        while b"\n" not in self._received:
            data = self._socket.recv(_CHUNK_BYTES)
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "`fanline run` does not answer"
    if isinstance(error, FileNotFoundError | ConnectionError):
        return "its `fanline run` has ended"
    return error.strerror or str(error)
