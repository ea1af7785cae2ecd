"""Where the embedded nats-server of a data directory is, and who may log in: chosen once, and kept in the directory.

So an exported URL, and a producer that is already running, survive a restart of `fanline serve`. The port is outside
the range from which the kernel takes ports of outgoing connections, so that none of them occupies it. If another
program has the port nevertheless, it may have received passwords that were meant for us: then another port and other
passwords are chosen, with a warning (docs/explanation/decisions/0045).
"""

import logging
import os
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.workers.own_secret import check_private
from fanline.workers.state_file import write_private

FILE_NAME = "nats.json"
LOOPBACK = "127.0.0.1"
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_OUTGOING = 32_768
"""Where that is not said."""
_LOWEST = 10_240
_ROOM = 12_000
_TRIES = 20
_MAX_BYTES = 4096
_Password = Annotated[str, Meta(min_length=32, max_length=256, pattern=r"^[0-9a-f]*\Z")]
_log = logging.getLogger("fanline.supervisor")


class KeptAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file."""

    port: Annotated[int, Meta(ge=1, le=65_535)]
    engine_password: _Password
    producer_password: _Password


@contextmanager
def kept_address(data_dir: Path) -> Iterator[KeptAddress]:
    """The address, whose port no other program can take while the block runs. Raises OSError if it cannot be kept."""
    path = data_dir / FILE_NAME
    known = _read(path)
    holder = None if known is None else _bind(known.port)
    if known is not None and holder is None:
        _log.warning(
            "another program has port %d, where the embedded nats-server was: it is on another one now, with other "
            "passwords, and a NATS_URL that was exported before no longer works",
            known.port,
        )
    if holder is None:
        holder = _bind_anywhere()
        known = KeptAddress(holder.getsockname()[1], secrets.token_hex(24), secrets.token_hex(24))
        write_private(path, msgspec.json.encode(known))
    assert known is not None
    with holder:
        yield known


@contextmanager
def passing_port() -> Iterator[int]:
    """A free port, for a process that soon ends."""
    with _bound(0) as holder:
        yield holder.getsockname()[1]


def _read(path: Path) -> KeptAddress | None:
    """None if there is none, or none that can be relied on."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            check_private(os.fstat(file.fileno()))
            return msgspec.json.decode(file.read(_MAX_BYTES), type=KeptAddress)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeError) as error:
        _log.warning("the embedded nats-server gets another port and other passwords: %s: %s", path, error)
        return None


def _bind_anywhere() -> socket.socket:
    first = _first_outgoing()
    lowest = max(_LOWEST, first - _ROOM)
    for _ in range(_TRIES if first > lowest else 0):
        holder = _bind(random.randrange(lowest, first))  # noqa: S311  # no secret
        if holder is not None:
            return holder
    return _bound(0)


def _first_outgoing() -> int:
    try:
        return int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _FIRST_OUTGOING


def _bind(port: int) -> socket.socket | None:
    """None if another program has it."""
    try:
        return _bound(port)
    except OSError:
        return None


def _bound(port: int) -> socket.socket:
    """A bound socket that never listens keeps out all but listeners with SO_REUSEADDR.

    nats-server is such a listener (as all Go programs are), so it gets the port after every restart, without a race.
    """
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, port))
    except OSError:
        holder.close()
        raise
    return holder
