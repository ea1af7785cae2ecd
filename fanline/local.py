"""Finding the `fanline serve` that runs on this machine."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fanline.errors import FanlineError
from fanline.protocol.nats.addresses import NatsAddress
from fanline.protocol.serve_state import STATE_FILES, ServeState, nats_login, newest_server, state_directory


class NoServer(FanlineError):  # noqa: N818  # reads as what was found
    """There is no local server that can be used; str() says where it was looked for."""


def find_server(environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> ServeState:
    """The local server that started last, or the one with that process ID. Raises NoServer."""
    directory = Path(state_directory(environ))
    server = newest_server(_contents(directory), is_alive, pid=pid)
    if server is None:
        raise NoServer(
            f"no running `fanline serve` found (looked in {directory}); start one or pass --url ws://HOST:PORT/ws"
        )
    return server


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


def _contents(directory: Path) -> Iterator[bytes]:
    for path in directory.glob(STATE_FILES):
        with suppress(OSError):  # the server has just removed its file, or the file is not ours to read
            yield path.read_bytes()
