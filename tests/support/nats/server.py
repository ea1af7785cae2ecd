"""A real nats-server for one test, on a random loopback port."""

import signal
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

BINARY = Path(sysconfig.get_path("scripts"), "nats-server")


class NatsServer:
    """One process at a time, always with the same port and store; `kill` and then `start` is an outage."""

    def __init__(self, directory: Path, *, jetstream: bool = True) -> None:
        self._directory = directory
        self._store = ["-js", "-sd", str(directory)] if jetstream else []
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        directory, port = str(self._directory), str(self.port)
        command = [str(BINARY), "-a", "127.0.0.1", "-p", port, "--ports_file_dir", directory, *self._store]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        with trio.fail_after(10):
            while not (found := list(self._directory.glob("*.ports"))) or not found[0].stat().st_size:
                await trio.sleep(0.02)
        self.port = int(msgspec.json.decode(found[0].read_bytes())["nats"][0].rpartition(":")[2])

    def pause(self) -> None:
        """Freeze the process, as an overloaded machine might; only `kill` ends that."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it with SIGKILL, and reap it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@asynccontextmanager
async def running_nats(*, jetstream: bool = True) -> AsyncIterator[NatsServer]:
    with TemporaryDirectory(prefix="fanline-nats-", ignore_cleanup_errors=True) as directory:
        server = NatsServer(Path(directory), jetstream=jetstream)
        try:
            await server.start()
            yield server
        finally:
            server.kill()
