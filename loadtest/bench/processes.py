"""The processes of a bench: our C programs, compiled when needed, and peers. Each speaks in JSON lines."""

import ctypes
import hashlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from fanline.loadtest.bench.errors import BenchError

_SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wno-format-nonliteral")
_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 10.0
_libc = ctypes.CDLL(None)


class Tool:
    """A running process that prints JSON lines and takes commands on stdin. It ends when this process ends."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = Path(command[0]).name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `stop`
        self._process = subprocess.Popen(  # noqa: S603  # our own programs
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,  # a line that cannot be written must not be kept until the close
            env=environ,
            cwd=cwd,
            preexec_fn=_die_with_parent,  # safe: the bench has one thread
        )
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, line: str) -> None:
        """Send a command. If the process has ended, the next read says so."""
        assert self._process.stdin
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except BrokenPipeError:
            return

    def read_line(self, timeout: float) -> bytes | None:
        """The next line of stdout; None after `timeout` seconds. Raises BenchError if the process has ended."""
        assert self._process.stdout
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise BenchError(f"{self.name} ended: {self._error_text() or f'exit code {self._process.wait()}'}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def read(self, timeout: float) -> Any:
        """The next line, as JSON. Raises BenchError if there is none within `timeout` seconds."""
        line = self.read_line(timeout)
        if line is None:
            raise BenchError(f"{self.name} said nothing for {timeout:g} s. {self._error_text()}".rstrip())
        return msgspec.json.decode(line)

    def stop(self) -> None:
        """End the process; after ten seconds, by force."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            stream.close()

    def _error_text(self) -> str:
        self._errors.seek(0)
        return " ".join(self._errors.read().decode("utf-8", "replace").split())


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Tool]:
    """A started process, which is ended on exit."""
    tool = Tool(command, environ, cwd)
    try:
        yield tool
    finally:
        tool.stop()


def options(values: Mapping[str, object]) -> list[str]:
    """Options in the form that our programs take."""
    return [f"{name}={value}" for name, value in values.items()]


def program(name: str) -> str:
    """The path of our C program `name`, which is compiled if its source has changed. Raises BenchError."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchError("no C compiler: the bench needs one for its programs, please install it (the command is cc)")
    source = _SOURCES / f"{name}.c"
    text = b"".join(path.read_bytes() for path in (source, *sorted(_SOURCES.glob("*.h"))))
    path = _cache() / f"{name}-{hashlib.sha256(text).hexdigest()[:16]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _compile(compiler, source, path)
    return str(path)


def _compile(compiler: str, source: Path, path: Path) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")  # renamed once complete: two benches may start at the same time
    command = [compiler, *_FLAGS, "-o", str(fresh), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own sources
    if result.returncode:
        raise BenchError(f"cannot compile {source.name}: {result.stderr.strip()}")
    fresh.replace(path)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "fanline", "bench")


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
