"""Connections to one particular worker. The kernel spreads connections over the workers, so we look, and try again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.support.raw_client import RawClient, connect
from tests.support.serve import Serve


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
    """Process id of the worker that serves a connection: the one that has the inode of the socket at its end. None if
    that worker has just died.
    """
    own = client.stream.socket.getsockname()[1]
    for row in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = row.split()[:10]
        if (int(local[-4:], 16), int(remote[-4:], 16)) == (serve.port, own):
            for pid in serve.worker_pids():
                with suppress(OSError):
                    if any(_is(path, f"socket:[{inode}]") for path in Path(f"/proc/{pid}/fd").iterdir()):
                        return pid
    return None


def _is(path: Path, target: str) -> bool:
    try:
        return str(path.readlink()) == target
    except OSError:
        return False
