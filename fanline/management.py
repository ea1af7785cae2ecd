"""Calling the management API of a server, from programs that wait: the command line.

The local server is reached through its control process's own socket, which its user alone can open, so no key is
needed.
"""

import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from fanline.errors import FanlineError
from fanline.local import find_server
from fanline.protocol.serve_state import control_socket_name, state_directory

PREFIX = "/api/v1/websocket"
KEY_VARIABLE = "FANLINE_API_KEY"
_SECONDS = 15.0


class ManagementError(FanlineError):
    """A call was refused, or there is nobody to answer it; str() is one line."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP; None if there was no answer."""


class ManagementClient:
    """`url`: of a server, as in https://fanline.example; None: the local one. Every call is a connection of its own."""

    def __init__(self, url: str | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._url = url
        self._environ = environ

    def call(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The answer's JSON. ManagementError, NoServer."""
        known = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{PREFIX}{path}{'?' if known else ''}{urlencode(known)}"
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if key := self._environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        connection, where = self._connection()
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            payload = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ManagementError(f"{where} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        return _read(answer.status, payload, where)

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """A connection, and whom it is to."""
        if self._url is None:
            port = urlsplit(find_server(self._environ).url).port or 0
            path = Path(state_directory(self._environ)) / control_socket_name(port)
            return _UnixConnection(str(path)), f"the control process of the local server ({path})"
        parts = urlsplit(self._url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return make(parts.hostname or "", parts.port, timeout=_SECONDS), self._url


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


def _read(status: int, payload: bytes, where: str) -> Any:
    try:
        answer = json.loads(payload)
    except ValueError:
        raise ManagementError(f"{where} has answered with status {status} and no JSON", status) from None
    known = answer if isinstance(answer, dict) else {}
    if status < 400 or (status == 503 and "healthy" in known):
        return answer
    text = " ".join(str(known[name]) for name in ("message", "help") if known.get(name))
    raise ManagementError(text or f"{where} has refused it with status {status}", status)
