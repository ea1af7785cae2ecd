"""A server from inside a program: `fanline serve` in a process of its own, which ends with the program."""

import os
import select
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

from fanline.errors import FanlineError
from fanline.local import find_server, is_alive
from fanline.producer.waiting import finish, wait
from fanline.protocol.serve_state import ServeState, newest_server, state_directory, state_file_name

_READY = "fanline ready: "
# The kernel ties the signal to the thread that has started the process, which therefore lives as long as the program.
# In a program of its own: nothing but an exec is safe between fork and exec in a process with threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-P", "-m", "fanline", "serve", *sys.argv[2:]])
"""


class ServerNotStarted(FanlineError):  # noqa: N818  # reads as what happened
    """`fanline serve` has ended before it was ready; it has said why on stderr."""


class RunningServer:
    """A server that this program has started, or found running."""

    def __init__(self, state: ServeState, process: "subprocess.Popen[str] | None", ended: Future[None]) -> None:
        self.url = state.url
        """Where clients connect, as in ws://127.0.0.1:8765/ws; `/` is the same."""
        self.pid = state.pid
        self._process = process
        self._ended = ended

    @property
    def attached(self) -> bool:
        """Whether it was running already: then it does not end with this program."""
        return self._process is None

    async def wait_ended(self) -> None:
        """Wait for its end, whatever ends it."""
        await wait(self._ended)

    def stop(self) -> None:
        """Ask it to end, if this program has started it. It lets its clients leave first."""
        if self._process is not None:
            self._process.terminate()


async def initialize_websocket_system(host: str = "0.0.0.0", port: int = 8765) -> RunningServer:  # noqa: S104  # as the programs expect
    """Start a server on this port, or attach to the one of this machine and user that has it already. Returns when
    clients can connect. It ends with this program.

    Its settings come from `fanline.toml` and the environment. It needs `pip install 'fanline[server]'`. Raises
    ServerNotStarted.
    """
    ready: Future[RunningServer] = Future()
    threading.Thread(target=_serve, args=(host, port, ready), name="fanline server", daemon=True).start()
    return await wait(ready)


async def start_websocket_server(host: str = "0.0.0.0", port: int = 8765) -> None:  # noqa: S104
    """The same for a program that is nothing but a server: returns when the server ends, and ends it when cancelled."""
    server = await initialize_websocket_system(host, port)
    try:
        await server.wait_ended()
    finally:
        server.stop()


def _serve(host: str, port: int, ready: Future[RunningServer]) -> None:
    """In a thread of its own, until the server's end."""
    ended: Future[None] = Future()
    ended.set_running_or_notify_cancel()  # whoever stops waiting for it does not cancel it
    found = _server_on(port)
    if found is None:
        command = [sys.executable, "-P", "-c", _DIE_WITH_PARENT, str(os.getpid()), "--host", host, "--port", str(port)]
        with subprocess.Popen(  # noqa: S603  # our own program
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_READY):
                    finish(ready, RunningServer(find_server(pid=process.pid), process, ended))
        found = None if ready.done() else _server_on(port)  # another process may have been quicker
        if found is None:
            finish(ready, ServerNotStarted(f"`fanline serve` ended with code {process.returncode}; it has said why"))
    if found is not None:
        finish(ready, RunningServer(found, None, ended))
        _wait_for(found.pid)
    finish(ended, None)


def _server_on(port: int) -> ServeState | None:
    """The live server of this machine and user that has this port."""
    path = Path(state_directory(os.environ), state_file_name(port))
    try:
        return newest_server([path.read_bytes()], is_alive)
    except OSError:
        return None


def _wait_for(pid: int) -> None:
    try:
        watched = os.pidfd_open(pid)
    except OSError:  # it has just ended
        return
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.poll()
    finally:
        os.close(watched)
