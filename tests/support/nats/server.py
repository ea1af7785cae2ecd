"""A real nats-server for one test, on a random loopback port, set up as the test wants it."""

import shutil
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

    def __init__(self, directory: Path, *, jetstream: bool = True, config: str = "") -> None:
        self._directory = directory
        self._config = config
        self._store = ["-js", "-sd", str(directory)] if jetstream else []
        self._process: subprocess.Popen[bytes] | None = None
        self.port = -1
        self.monitoring = ""
        """URL for the HTTP monitoring, if the configuration has `http`."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        with (self._directory / "stderr.txt").open("ab") as errors:
            self._process = subprocess.Popen(self._command(), stderr=errors)
        with trio.fail_after(30):
            while not (found := list(self._directory.glob("*.ports"))) or not found[0].stat().st_size:
                assert self._process.poll() is None, (self._directory / "stderr.txt").read_text()[-2000:]
                await trio.sleep(0.02)
        ports: dict[str, list[str]] = msgspec.json.decode(found[0].read_bytes())
        self.port = int(ports["nats"][0].rpartition(":")[2])
        self.monitoring = ports.get("monitoring", [""])[0]

    def _command(self) -> list[str]:
        config = self._directory / "nats.conf"
        config.write_text(self._config)
        listen = ["-a", "127.0.0.1", "-p", str(self.port), "--ports_file_dir", str(self._directory)]
        return [str(BINARY), "-c", str(config), *listen, *self._store]

    def reload(self, config: str) -> None:
        """Make it read another configuration, which may concern the clients that are connected."""
        assert self._process is not None
        self._config = config
        (self._directory / "nats.conf").write_text(config)
        self._process.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Freeze the process, as an overloaded machine might; `resume` or `kill` ends that."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def retire(self) -> None:
        """Put it into lame duck mode: it asks its clients to leave, and stops later."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        """Kill it with SIGKILL, and reap it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_store(self) -> None:
        """Remove all that JetStream has stored, of a process that is not running."""
        assert self._process is None
        shutil.rmtree(self._directory / "jetstream")


@asynccontextmanager
async def running_nats(*, jetstream: bool = True, config: str = "") -> AsyncIterator[NatsServer]:
    """A nats-server; `config` is the text of its configuration file, without listening addresses and store."""
    with TemporaryDirectory(prefix="fanline-nats-", ignore_cleanup_errors=True) as directory:
        server = NatsServer(Path(directory), jetstream=jetstream, config=config)
        try:
            await server.start()
            yield server
        finally:
            server.kill()
