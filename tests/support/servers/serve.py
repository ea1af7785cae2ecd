"""A real `fanline serve` for tests: `async with running_serve() as serve:`.

It has port 0 and its own data and state directories, is ready, and leaves nothing running afterwards.
"""

import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.serve_state import ServeState, as_engine, decode_state, nats_options
from fanline.workers.supervision.child import Child
from tests.support.paths import ROOT

COMMAND = (sys.executable, "-P", "-m", "fanline.workers")
READY_SECONDS = 60.0
_READY = re.compile(r"fanline ready: (?P<url>wss?://\S+)  (?P<workers>\d+) workers?  (?P<nats>(?:nats|tls)://\S+) ")

Started = tuple[Child, trio.lowlevel.FdStream]
"""A process that was started, and its stdout."""


@dataclass
class Serve:
    """One running `fanline serve`."""

    child: Child
    stdout: trio.lowlevel.FdStream
    directory: Path
    """Contains state/ and stderr.txt; not a working directory."""
    data_directory: Path
    ready_line: str
    environ: dict[str, str]
    """For programs of the same tree that are to find it."""
    start: Callable[[int], Started]
    """Starts it with this port."""
    where: tuple[str, int] = field(init=False)
    """The address at which clients reach it. A test may put something in between."""
    url: str = field(init=False)
    nats_url: str = field(init=False)

    def __post_init__(self) -> None:
        self._read(self.ready_line)
        self.where = ("127.0.0.1", self.port)

    def _read(self, ready_line: str) -> None:
        match = _READY.match(ready_line)
        assert match, f"not a ready line: {ready_line!r}"
        self.ready_line, self.url, self.nats_url = ready_line, match["url"], match["nats"]

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self.child.pid

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    @property
    def state_directory(self) -> Path:
        return self.directory / "state"

    @property
    def engine_url(self) -> str:
        """The URL of its NATS with the engine's login."""
        return self._nats_with_login(as_engine(self._state()))

    @property
    def engine(self) -> NatsOptions:
        """How the engine logs in."""
        return nats_options(as_engine(self._state()))

    @property
    def producer_url(self) -> str:
        """The same with that of producers."""
        return self._nats_with_login(self._state())

    @property
    def producer(self) -> NatsOptions:
        return nats_options(self._state())

    def _state(self) -> ServeState:
        return decode_state((self.state_directory / f"serve-{self.port}.json").read_bytes())

    def _nats_with_login(self, state: ServeState) -> str:
        return self.nats_url.replace("://", f"://{state.nats_user}:{state.nats_password}@")

    def worker_pids(self) -> list[int]:
        """The live workers, oldest first."""
        return [pid for pid, command in children_of(self.pid) if "workers.worker" in command]

    def nats_pid(self) -> int:
        (pid,) = (pid for pid, command in children_of(self.pid) if "nats-server" in command)
        return pid

    def is_whole(self, workers: int = 2) -> bool:
        """Whether this many workers live, and nats-server with them."""
        commands = [command for _, command in children_of(self.pid)]
        counts = [sum(name in command for command in commands) for name in ("workers.worker", "nats-server")]
        return counts == [workers, 1]

    def stderr_text(self) -> str:
        return (self.directory / "stderr.txt").read_text()

    async def start_again(self) -> None:
        """Once it has ended: start it again, on the same port and with the same directories. Returns when ready."""
        await self.child.wait()
        self.child.close()
        await self.stdout.aclose()
        self.child, self.stdout = self.start(self.port)
        self._read(await _read_ready_line(self.stdout, self.directory))


@asynccontextmanager
async def running_serve(
    workers: int = 2,
    extra_args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    data_directory: Path | None = None,
) -> AsyncIterator[Serve]:
    """A ready server on loopback. It is stopped with SIGTERM; what is left after 10 s is killed.

    `prefix`: a command that runs the command in its arguments. `data_directory`: by default one of its own.
    """
    with _directory() as directory:
        data = data_directory or directory / "data"
        common = ("--workers", str(workers), "--data-dir", str(data), *extra_args)

        def start(port: int) -> Started:
            return start_serve(("--port", str(port), *common), directory, env, prefix)

        child, stdout = start(0)
        try:
            line = await _read_ready_line(stdout, directory)
            serve = Serve(child, stdout, directory, data, line, serve_environ(directory, env), start)
        except BaseException:
            await _stop(child, stdout)
            raise
        try:
            yield serve
        finally:
            await _stop(serve.child, serve.stdout)


@contextmanager
def shared_serve() -> Iterator[Serve]:
    """A ready server with one worker for all tests of a module, each of which has its own event loop. A test keeps to
    channels of its own, and harms no process of the server.
    """
    with _directory() as directory:

        def start(port: int) -> Started:
            return start_serve(("--port", str(port), "--workers", "1", "--data-dir", str(data)), directory)

        data = directory / "data"
        child, stdout = start(0)
        try:
            line = trio.run(_read_ready_line, stdout, directory)
            yield Serve(child, stdout, directory, data, line, serve_environ(directory), start)
        finally:
            trio.run(_stop, child, stdout)


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fanline-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)


async def _stop(child: Child, stdout: trio.lowlevel.FdStream) -> None:
    # pidfds: by the time we kill, a process id may belong to another process
    family = list(_pidfds(child.pid))
    with trio.CancelScope(shield=True):
        await child.stop(10)
        await stdout.aclose()
    child.close()
    for pidfd in family:
        _kill(pidfd)


def _pidfds(parent: int) -> Iterator[int]:
    """Of the live children; one that ends while we look is left out."""
    for pid, _ in children_of(parent):
        with suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


def start_serve(
    args: Sequence[str], directory: Path, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
) -> Started:
    """Start `fanline serve ARGS`, which dies with us. Returns its stdout; its stderr goes to directory/stderr.txt."""
    read_end, write_end = os.pipe()
    with (directory / "stderr.txt").open("ab") as errors:
        command = [*prefix, *COMMAND, *args]
        child = Child(command, environ=serve_environ(directory, env), stdout=write_end, stderr=errors.fileno())
    os.close(write_end)
    return child, trio.lowlevel.FdStream(read_end)


def serve_environ(directory: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without FANLINE_* but with the tree under test on the path, and without a control process, which
    takes a second of CPU to start; `env` overrides it.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FANLINE_")}
    paths = filter(None, [str(ROOT), inherited.get("PYTHONPATH")])
    own = {
        "PYTHONPATH": os.pathsep.join(paths),
        "FANLINE_STATE_DIR": str(directory / "state"),
        "FANLINE_CONTROL": "false",
    }
    return inherited | own | dict(env or {})


async def _read_ready_line(stdout: trio.lowlevel.FdStream, directory: Path) -> str:
    line = b""
    with trio.move_on_after(READY_SECONDS):
        while not line.endswith(b"\n") and (data := await stdout.receive_some(4096)):
            line += data
        if line.endswith(b"\n"):
            return line.decode().rstrip("\n")
    errors = (directory / "stderr.txt").read_text()
    raise AssertionError(f"fanline serve did not become ready: {line!r}\n{errors}")


async def refused_start(directory: Path, seconds: float = 90.0) -> tuple[int, str]:
    """Exit code and stderr of a server that cannot start with the settings in a directory; nothing is on stdout."""
    with trio.fail_after(seconds):
        done = await trio.run_process(
            [*COMMAND, "--port", "0", "--workers", "1", "--data-dir", str(directory / "data")],
            cwd=directory,
            env=serve_environ(directory),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


async def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that Trio cannot see. TooSlowError after `seconds` seconds."""
    with trio.fail_after(seconds):
        while not condition():  # other processes set no event
            await trio.sleep(0.01)


async def kill(pid: int) -> None:
    """SIGKILL for a process; returns when it has ended, so that whoever looks next does not find it alive."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return _stat(pid)[0] not in ("Z", "X")
    except OSError:
        return False


def children_of(parent: int) -> list[tuple[int, str]]:
    """(pid, command line) of the live children, oldest first."""
    return [(pid, command) for _, pid, command in sorted(_children(parent))]


def _children(parent: int) -> Iterator[tuple[int, int, str]]:
    """(start time, pid, command line) of each live child; one that ends while we look is left out."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = _stat(int(entry.name))
            if int(fields[1]) == parent and fields[0] not in ("Z", "X"):
                yield int(fields[19]), int(entry.name), command_line(int(entry.name))


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat, beginning with the state (field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
