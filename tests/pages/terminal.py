"""A terminal of the newcomer: one command at a time, and all that it prints."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

SECONDS = 60.0
"""For a command to end, or to print what it should, on a busy machine."""
TYPED_A_SECOND = 5  # characters


class Terminal:
    """What it prints is in `text()`, stdout and stderr as a person sees them."""

    def __init__(self, directory: Path, log: Path, environ: Mapping[str, str], translate: Callable[[str], str]) -> None:
        self.environ = dict(environ)
        self.typed = 0.0
        """Seconds that a newcomer needs to type what was typed here."""
        self._directory, self._log, self._translate = directory, log, translate
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: str, exit_code: int | None = 0) -> str:
        """Type a command, wait for its end, return what it has printed. `exit_code`: None for any."""
        self._start(command)
        ended = self._wait()
        assert exit_code in (ended, None), f"`{command}` ended with {ended}:\n{self.text()}"
        return self.text()

    def start(self, command: str, until: str) -> str:
        """Type a command, wait until it prints something, and leave it running."""
        self._start(command)
        return self.wait_for(until)

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until the command that was typed last has printed this, `times` times."""
        end = time.monotonic() + SECONDS
        while self.text().count(text) < times:
            running = self._process is not None and self._process.poll() is None
            assert running or self.text().count(text) >= times, f"ended without printing {text!r}:\n{self.text()}"
            assert time.monotonic() < end, f"did not print {text!r}:\n{self.text()}"
            time.sleep(0.02)
        return self.text()

    def wait_end(self, exit_code: int | None = 0) -> str:
        """Wait for the end of what was started."""
        ended = self._wait()
        assert exit_code in (ended, None), f"ended with {ended}:\n{self.text()}"
        return self.text()

    def interrupt(self) -> str:
        """Press Ctrl-C."""
        self._signal(signal.SIGINT)
        self._wait()
        return self.text()

    def text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def close(self) -> None:
        """End what still runs, and what it has left in the background."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _start(self, command: str) -> None:
        self.close()
        self.typed += len(command) / TYPED_A_SECOND
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-e", "-c", self._translate(command)],
                cwd=self._directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self) -> int:
        assert self._process is not None
        try:
            return self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs:\n{self.text()}") from None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
