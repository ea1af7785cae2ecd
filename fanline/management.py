"""Calling the management API of a server, from programs that wait:

    from fanline.management import ManagementClient

    client = ManagementClient()
    client.get("/stats")["active_connections"]
    [each["user_id"] for each in client.items("/connections", channel="project:7")]
    client.post("/users/disconnect", user_id="anna")

The local server is reached through its control process's own socket, which its user alone can open, so no key is
needed. Under asyncio, call in a thread: `await asyncio.to_thread(client.get, "/stats")`.
"""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from fanline.errors import FanlineError, reason_of
from fanline.local import LocalServer, NoServer, chosen_server, find_local
from fanline.protocol.serve_state import control_socket_name
from fanline.protocol.unix_socket import socket_address

PREFIX = "/api/v1/websocket"
KEY_VARIABLE = "FANLINE_API_KEY"


class ManagementError(FanlineError):
    """A call was refused, or there is nobody to answer it; str() is one line."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP; None if there was no answer."""


class ManagementClient:
    """`url`: of a server, as in https://fanline.example; None: that of FANLINE_URL, or the local one. A server of this
    user on this machine needs no key. `key`: None: that of FANLINE_API_KEY. `seconds`: how long a call may take. Every
    call is a connection of its own; threads may share a client.
    """

    def __init__(
        self,
        url: str | None = None,
        environ: Mapping[str, str] = os.environ,
        *,
        key: str | None = None,
        seconds: float = 15.0,
    ) -> None:
        self._url = url
        self._environ = environ
        self._key = key or environ.get(KEY_VARIABLE)
        self._seconds = seconds

    def get(self, path: str, **query: Any) -> Any:
        """What a call answers, such as "/stats". ManagementError, NoServer."""
        return self.call("GET", path, query)

    def post(self, path: str, **body: Any) -> Any:
        """The same for calls that do something. ManagementError, NoServer."""
        return self.call("POST", path, body=body)

    def items(self, path: str, **query: Any) -> Iterator[Any]:
        """All items of a list, such as "/connections", page by page. ManagementError, NoServer."""
        after = None
        while True:
            page = self.get(path, **query, after=after)
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def call(self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The answer's JSON. ManagementError, NoServer."""
        known = {name: value for name, value in (query or {}).items() if value is not None}
        target = f"{PREFIX}{path}{'?' if known else ''}{urlencode(known)}"
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection, where = self._connection()
        try:
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            payload = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ManagementError(f"{where} does not answer: {reason_of(error)}") from None
        finally:
            connection.close()
        return _read(answer.status, payload, where)

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """A connection, and whom it is to."""
        url, local = self._url, None
        if url is None:
            url = chosen_server(self._environ)
        if self._url is None or self._url.isdecimal() or not self._key:
            local = self._local(url)
        if local is not None:
            if not local.state.control:
                raise ManagementError("the local server has no control process: its settings say control = false")
            path = local.directory / control_socket_name(urlsplit(local.state.url).port or 0)
            return _UnixConnection(str(path), self._seconds), f"the control process of the local server ({path})"
        assert url is not None
        parts = urlsplit(url)
        make = http.client.HTTPSConnection if parts.scheme in ("https", "wss") else http.client.HTTPConnection
        return make(parts.hostname or "", parts.port, timeout=self._seconds), url

    def _local(self, url: str | None) -> LocalServer | None:
        """The local server that is meant; None if it is one elsewhere. Raises NoServer."""
        try:
            return find_local(self._environ, url=url)
        except NoServer:
            if url is None or url.isdecimal():
                raise
            return None


_RETRY_SECONDS = 0.1


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path, self._patience = path, seconds

    def connect(self) -> None:
        """The server is ready for clients some moments before its control process is, which then has no socket yet."""
        end = time.monotonic() + self._patience
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            try:
                with socket_address(self._path) as address:
                    return self.sock.connect(address)
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                if time.monotonic() > end:
                    raise
            time.sleep(_RETRY_SECONDS)


def _read(status: int, payload: bytes, where: str) -> Any:
    try:
        answer = json.loads(payload)
    except ValueError:
        raise ManagementError(f"{where} has answered with status {status} and no JSON", status) from None
    known = answer if isinstance(answer, dict) else {}
    if status < 400 or (status == 503 and "healthy" in known):
        return answer
    text = ". ".join(str(known[name]).rstrip(".") for name in ("message", "help") if known.get(name))
    raise ManagementError(text or f"{where} has refused it with status {status}", status)
