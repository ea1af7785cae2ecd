"""Which server is loaded: the one that was named, else a `fanline serve` of this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fanline.protocol.nats.addresses import NatsAddress, parse_url
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.serve_state import STATE_FILES, ServeState, nats_login, newest_server, state_directories


class TargetError(Exception):
    """There is nothing to load; str() says what to do."""


class Target(NamedTuple):
    """A server under load: its WebSocket endpoint and its NATS."""

    url: str
    nats: NatsAddress


def find_target(url: str, nats: str) -> Target:
    """The target of a WebSocket URL and a NATS URL; "" stands for that of the newest running `fanline serve`."""
    try:
        if url and nats:
            return Target(url, parse_url(nats))
        state = _newest_server()
        return Target(url or state.url, parse_url(nats) if nats else _address(state))
    except NatsError as error:
        raise TargetError(str(error)) from None


def _address(state: ServeState) -> NatsAddress:
    address = nats_login(state)
    if address is None:
        raise TargetError("this server's NATS requires files, which the load users do not read: set FANLINE_LOAD_NATS")
    return address


def _newest_server() -> ServeState:
    server = newest_server(_state_files(), _is_alive)
    if server is None:
        raise TargetError(
            "no running server found: start one with `fanline serve`, or set FANLINE_LOAD_URL and FANLINE_LOAD_NATS"
        )
    return server


def _state_files() -> Iterator[bytes]:
    for directory in state_directories(os.environ, os.geteuid()):
        for path in Path(directory).glob(STATE_FILES):
            with suppress(OSError):  # the server has just removed its file
                yield path.read_bytes()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError):
        return False
    return True
