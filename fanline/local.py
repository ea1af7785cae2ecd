"""Finding the `fanline serve` that runs on this machine, and which one if there are several."""

import os
import pwd
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from fanline.errors import FanlineError
from fanline.protocol.nats.addresses import NatsAddress
from fanline.protocol.serve_state import STATE_FILES, ServeState, decode_state, nats_login, state_directories

URL_VARIABLE = "FANLINE_URL"
"""Names the server for every command and program: its URL, or the port of a local one."""
TOKEN_VARIABLE = "FANLINE_TOKEN"
"""The token to show there."""
TO_VIEWERS = "start one, or name one with --url or FANLINE_URL"
TO_PRODUCERS = "start one, or set FANLINE_NATS"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_OUR_HOSTS = frozenset(("127.0.0.1", "localhost", "::1", "0.0.0.0", "::"))  # noqa: S104  # what a URL may say


class NoServer(FanlineError):  # noqa: N818  # reads as what was found
    """There is no local server that can be used; str() says where it was looked for."""


class LocalServer(NamedTuple):
    """A running server of this machine."""

    state: ServeState
    directory: Path
    """Of its state file, and of the socket of its control process."""


class _Search(NamedTuple):
    """What there is in the state directories."""

    servers: list[LocalServer]
    """The newest first."""
    refused: list[Path]
    """What belongs to others."""
    directories: list[Path]


def find_server(
    environ: Mapping[str, str] = os.environ,
    *,
    pid: int | None = None,
    url: str | None = None,
    advice: str = TO_VIEWERS,
) -> ServeState:
    """The local server that is named by `url` or FANLINE_URL, else the one that started last; or the one with that
    process ID. Raises NoServer, whose text ends with the advice.
    """
    return find_local(environ, pid=pid, url=url, advice=advice).state


def find_local(
    environ: Mapping[str, str] = os.environ,
    *,
    pid: int | None = None,
    url: str | None = None,
    advice: str = TO_VIEWERS,
) -> LocalServer:
    """The same, with its directory."""
    wanted = chosen_server(environ) if url is None and pid is None else url
    search = _search(environ)
    for server in search.servers:
        if pid in (None, server.state.pid) and (wanted is None or is_same_server(wanted, server.state.url)):
            return server
    raise NoServer(f"{_why(search, wanted)}; {advice}")


def running_servers(environ: Mapping[str, str] = os.environ) -> list[ServeState]:
    """All servers of this user on this machine, the newest first."""
    return [server.state for server in _search(environ).servers]


def chosen_server(environ: Mapping[str, str] = os.environ) -> str | None:
    """What FANLINE_URL says, as `server_name` has it; None if it is not set. Raises NoServer if it names none."""
    text = environ.get(URL_VARIABLE, "").strip()
    try:
        return server_name(text) if text else None
    except ValueError as error:
        raise NoServer(f"{URL_VARIABLE}: {error}") from None


def remote_server() -> str | None:
    """The server in FANLINE_URL, if it is elsewhere: of one that this user runs on this machine, the NATS is used.
    Raises NoServer for the port of no local server.
    """
    name = chosen_server()
    if name is None:
        return None
    try:
        find_server()
    except NoServer:
        if name.isdecimal():
            raise
        return name
    return None


def server_name(text: str) -> str:
    """A server as people name it: the URL of its WebSocket endpoint, or the port of a local server, as it is. The URL
    of its pages is taken for that of its endpoint. Raises ValueError.
    """
    if text.isascii() and text.isdecimal() and 0 < int(text) < 65_536:
        return text
    wrong = f"not a WebSocket URL: {text!r} (expected ws://HOST:PORT/ws, or the port of a local server)"
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # the port, or brackets
        raise ValueError(f"{wrong}: {error}") from None
    if not is_url:
        raise ValueError(wrong)
    path = "/ws" if parts.path in ("", "/") else parts.path
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def is_same_server(name: str, url: str) -> bool:
    """Whether `server_name` means the local server with that URL."""
    own = urlsplit(url)
    if name.isdecimal():
        return own.port == int(name)
    other = urlsplit(name)
    hosts = {other.hostname, own.hostname}
    return _port(other) == _port(own) and (len(hosts) == 1 or hosts <= _OUR_HOSTS)


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "wss" else 80)


class FollowedServer:
    """The local server of a program that stays connected. It looks again for each connection, since a server that was
    restarted may have moved; but it does not go over to another one that runs beside it.
    """

    def __init__(self) -> None:
        self._last: ServeState | None = None
        self._seen = 0.0

    def find(self) -> ServeState:
        """Raises NoServer."""
        server = find_server(advice=TO_PRODUCERS)
        if self._last is not None and server.url != self._last.url:
            with suppress(NoServer):
                server = find_server(url=self._last.url)
            if server.url != self._last.url and server.started < self._seen:
                raise NoServer(f"{self._last.url} does not run any more, and {server.url} is another server")
        self._last, self._seen = server, time.time()
        return server


def server_url(url: str | None) -> str:
    """The WebSocket URL that was given, that of the environment, or that of the server on this machine. Raises
    ValueError, and NoServer if none is known.
    """
    name = server_name(url) if url else chosen_server()
    return find_server(url=name).url if name is None or name.isdecimal() else name


def nats_address(state: ServeState) -> NatsAddress:
    """The address of a server's NATS, with producers' credentials. NoServer if a URL cannot hold what NATS requires."""
    address = nats_login(state)
    if address is None:
        raise NoServer(
            f"the NATS of {state.url} requires files, which no URL can hold: set FANLINE_NATS, and FANLINE_NATS_CREDS, "
            "FANLINE_NATS_NKEY or FANLINE_NATS_TLS_CA, as for the server"
        )
    return address


def is_alive(pid: int) -> bool:
    """Whether there is a process with this ID, whoever owns it."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0  # 0 and below name process groups, not a process


def _search(environ: Mapping[str, str]) -> _Search:
    directories = [Path(directory) for directory in state_directories(environ, os.geteuid())]
    servers: list[LocalServer] = []
    refused: list[Path] = []
    for directory in directories:
        try:
            names = os.listdir(directory)  # noqa: PTH208  # a glob says nothing of a directory that it may not read
        except PermissionError:
            refused.append(directory)
            continue
        except OSError:
            continue
        for name in names:
            path = directory / name
            if not path.match(STATE_FILES):
                continue
            try:
                state = decode_state(path.read_bytes())
            except PermissionError:
                refused.append(path)
            except (OSError, ValueError):  # just removed, or written by another version
                continue
            else:
                if is_alive(state.pid):
                    servers.append(LocalServer(state, directory))
    servers.sort(key=lambda server: server.state.started, reverse=True)
    return _Search(servers, refused, directories)


def _why(search: _Search, wanted: str | None) -> str:
    """Why no server was found."""
    if search.refused:
        path = search.refused[0]
        return f"permission denied: {path} belongs to {_owner(path)}, and so does the server that it is of"
    looked = f"(looked in {', '.join(map(str, search.directories))})"
    if wanted is None:
        return f"no running `fanline serve` found {looked}"
    name = f"port {wanted}" if wanted.isdecimal() else wanted
    others = ", ".join(server.state.url for server in search.servers)
    return f"no running `fanline serve` of yours has {name} {f'(there is {others})' if others else looked}"


def _owner(path: Path) -> str:
    try:
        user_id = path.stat().st_uid
        return pwd.getpwuid(user_id).pw_name
    except OSError:
        return "another user"
    except KeyError:
        return f"user {user_id}"
