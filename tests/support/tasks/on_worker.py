"""Connections to one particular worker. The kernel spreads connections over the workers, so we look, and try again."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve


@asynccontextmanager
async def connect_to(
    serve: Serve, worker: int | None, subprotocol: str | None = "fanline.v1.json"
) -> AsyncIterator[RawClient]:
    """An open WebSocket on the worker with this process id; None: on any."""
    while True:
        async with connect(*serve.where, subprotocol) as client:
            if worker is None or worker_of(serve, client) == worker:
                yield client
                return


def worker_of(serve: Serve, client: RawClient) -> int | None:
    """Process id of the worker that serves a connection. None if that worker has just died."""
    own = client.stream.socket.getsockname()[1]
    return _holder(serve, {own})


def worker_at(serve: Serve, client_pid: int) -> int | None:
    """The same for the connection of another process."""
    sockets = _sockets(client_pid)
    return _holder(serve, {local for local, remote, inode in _connections() if inode in sockets})


def _holder(serve: Serve, ports: set[int]) -> int | None:
    """The worker that has the inode of the server's end of a connection from one of these ports."""
    ends = {inode for local, remote, inode in _connections() if local == serve.port and remote in ports}
    return next((pid for pid in serve.worker_pids() if _sockets(pid) & ends), None)


def _connections() -> Iterator[tuple[int, int, str]]:
    """Each TCP socket of this machine: its port, that of its peer, and its inode."""
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = row.split()[:10]
        yield int(local[-4:], 16), int(remote[-4:], 16), inode


def _sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    found = set()
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.add(str(path.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found
