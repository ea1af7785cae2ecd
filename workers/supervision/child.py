"""One child process that never outlives its parent. Linux only: PDEATHSIG and pidfd.

The kernel ties a parent-death signal to the *thread* that forked, so children start in the main thread with
subprocess.Popen; trio.lowlevel.open_process forks in a worker thread and cannot be used.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import trio

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2


class Child:
    """A running process in a process group of its own, so that a terminal's Ctrl-C reaches only the supervisor."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        pass_fds: Sequence[int] = (),
        environ: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start it. Raises OSError if that fails.

        `stdin` must fit into a pipe buffer (64 KiB). `stdout` and `stderr` are descriptors; None inherits ours.
        `death_signal` is sent to it if we die without stopping it.
        """
        self._process = subprocess.Popen(  # noqa: S603  # argv is ours, no shell
            argv,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=environ,
            pass_fds=pass_fds,
            process_group=0,
            preexec_fn=_die_with_parent(death_signal),  # safe: the supervisor has only one thread
        )
        assert self._process.stdin is not None
        try:
            with suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(stdin)
            self._pidfd = os.pidfd_open(self._process.pid)  # last, so that no failure leaves it open
        except BaseException:  # as when there is no file left: nobody would know of the process
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ending(self) -> str | None:
        """How it ended, for people. None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def wait(self) -> None:
        """Return when the process has ended, without polling."""
        while self.ending is None:
            await trio.lowlevel.wait_readable(self._pidfd)

    def kill(self) -> None:
        self._process.kill()  # does nothing once the process is reaped

    async def stop(self, seconds: float) -> bool:
        """Send SIGTERM, and SIGKILL after `seconds`. False if it had to be killed."""
        self._process.terminate()
        with trio.move_on_after(seconds):
            await self.wait()
            return True
        self.kill()
        await self.wait()
        return False

    def close(self) -> None:
        """Release the descriptor; only after the process has ended."""
        os.close(self._pidfd)


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """What a child runs between fork and exec, so that it gets the signal when this process dies."""
    parent = os.getpid()

    def request_signal() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died between fork and prctl: the signal would never come
            os._exit(1)

    return request_signal


def dies_with_parent() -> bool:
    """Whether this process gets a signal when the one that has started it ends."""
    sent = ctypes.c_int(0)
    _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(sent))
    return sent.value != 0
