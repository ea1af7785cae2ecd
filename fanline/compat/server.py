"""A server from inside a program: `fanline serve` in a process of its own, which ends with the program.

Of several programs on one port the first starts it, and the others attach. When it ends with its program, one of the
others starts the next.
"""

import os
import select
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from fanline.compat.answering.answers import ANSWER, AUTHENTICATE, AUTHORIZE
from fanline.compat.answering.manager import WebSocketManager, websocket_manager
from fanline.errors import FanlineError
from fanline.local import NoServer, find_server, is_alive
from fanline.producer.waiting import finish, wait
from fanline.protocol.hooks.events import EventName
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.serve_state import (
    ServeState,
    as_engine,
    control_socket_name,
    nats_options,
    newest_server,
    state_directory,
    state_file_name,
)
from fanline.protocol.unix_socket import socket_address

CONTROL_SECONDS = 10.0
"""How long a start waits for the control process, without which nothing is counted; then it does without."""
RIVAL_SECONDS = 5.0
"""How long a server that has the port already may take until it can be found."""
_LOOK_SECONDS = 0.05
_READY = "fanline ready: "
_ASKED = {AUTHENTICATE: "FANLINE_ACCESS_AUTHENTICATOR", AUTHORIZE: "FANLINE_ACCESS_ROOM_AUTHORIZER"}
# The kernel ties the signal to the thread that has started the process, which therefore lives as long as the program.
# In a program of its own: nothing but an exec is safe between fork and exec in a process with threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-P", "-m", "fanline", "serve", *sys.argv[2:]])
"""


class ServerNotStarted(FanlineError):  # noqa: N818  # reads as what happened
    """`fanline serve` has ended before it was ready, as it has said on stderr; or the server that has the port does not
    ask this program who may come in.
    """


class RunningServer:
    """A server that this program has started, or found running."""

    def __init__(self, host: str, port: int, environ: Mapping[str, str]) -> None:
        self.url = ""
        """Where clients connect, as in ws://127.0.0.1:8765/ws; `/` is the same."""
        self.pid = 0
        """Of the server; another one after another program that had started it has ended."""
        self._command = ("--host", host, "--port", str(port))
        self._port = port
        self._environ = environ
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()  # a caller that stops waiting does not cancel it

    @property
    def attached(self) -> bool:
        """Whether it was running already: then it does not end with this program."""
        return self._process is None

    async def wait_ended(self) -> None:
        """Wait for its end, whatever ends it. If that is the end of another program, there is another server first."""
        await wait(self._ended)

    def stop(self) -> None:
        """Ask it to end, if this program has started it. It lets its clients leave first."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()

    # --- in a thread of its own ----------------------------------------------------------------------------------

    def serve(self, ready: Callable[["ServeState | ServerNotStarted"], object]) -> None:
        """Until the end of the last server. `ready`: told of each that there is, and why there is none."""
        goes_on = True
        while goes_on and not self._stopped:
            found = server_on(self._port)
            if found is None:
                goes_on = self._start(ready)
            elif found.owner and not is_alive(found.owner):  # its program has ended, and it is about to
                _wait_for(found.pid)
            else:
                goes_on = self._attach(found, ready)
        finish(self._ended, None)

    def _attach(self, found: ServeState, ready: Callable[[ServeState], object]) -> bool:
        """Whether there has to be another one when this one has ended."""
        self._become(found, None)
        ready(found)
        _wait_for(found.pid)
        return bool(found.owner)

    def _start(self, ready: Callable[["ServeState | ServerNotStarted"], object]) -> bool:
        """Whether to look again: another program has been quicker."""
        command = [sys.executable, "-P", "-c", _DIE_WITH_PARENT, str(os.getpid()), *self._command]
        with subprocess.Popen(  # noqa: S603  # our own program
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self._environ
        ) as process:
            assert process.stdout is not None
            was_ready = False
            for line in process.stdout:
                if line.startswith(_READY):
                    was_ready = True
                    state = find_server(pid=process.pid)
                    self._become(state, process)
                    if self._stopped:
                        process.terminate()
                    _wait_for_control(state)
                    ready(state)
        if was_ready or self._stopped:
            return False
        if _appears(self._port):
            return True
        code = process.returncode
        ready(ServerNotStarted(f"`fanline serve` ended with code {code}; it has said why on stderr"))
        return False

    def _become(self, state: ServeState, process: "subprocess.Popen[str] | None") -> None:
        self.url, self.pid, self._process = state.url, state.pid, process


async def initialize_websocket_system(
    host: str = "0.0.0.0",  # noqa: S104  # as the programs expect
    port: int = 8765,
    manager: WebSocketManager = websocket_manager,
) -> RunningServer:
    """Start a server on this port, or attach to the one of this machine and user that has it already. Returns when
    clients can connect, and the server calls the functions of `manager`. It ends with this program.

    Its settings come from `fanline.toml` and the environment; it asks the manager's `authenticate_user` and
    `can_user_access_room` if they are overridden. It needs `pip install 'fanline[server]'`. Raises ServerNotStarted, or
    NotAttached.
    """
    required = manager.subjects_required()
    server = RunningServer(host, port, _environ(required))
    ready: Future[None] = Future()

    def tell(state: ServeState | ServerNotStarted) -> None:
        finish(ready, state if isinstance(state, ServerNotStarted) else _unasked(state, required))

    threading.Thread(target=server.serve, args=(tell,), name="fanline server", daemon=True).start()
    try:
        await wait(ready)
        await wait(manager.start(lambda: _engine_on(port)))
    except BaseException:
        server.stop()
        raise
    return server


async def start_websocket_server(
    host: str = "0.0.0.0",  # noqa: S104
    port: int = 8765,
    manager: WebSocketManager = websocket_manager,
) -> None:
    """The same for a program that is nothing but a server: returns when the server ends, and ends it when cancelled."""
    server = await initialize_websocket_system(host, port, manager)
    try:
        await server.wait_ended()
    finally:
        server.stop()


def server_on(port: int) -> ServeState | None:
    """The live server of this machine and user that has this port."""
    path = Path(state_directory(os.environ), state_file_name(port))
    try:
        return newest_server([path.read_bytes()], is_alive)
    except OSError:
        return None


def _engine_on(port: int) -> NatsOptions:
    """Its NATS, with the engine's login. NoServer."""
    state = server_on(port)
    if state is None:
        raise NoServer(f"there is no server on port {port}")
    return nats_options(as_engine(state))


def _environ(required: frozenset[str]) -> dict[str, str]:
    """Has the server ask this program. The mode `token` admits no client that `authenticate_user` does not know."""
    asked = {_ASKED[subject]: f"nats:{subject}" for subject in required}
    if AUTHENTICATE in required and not _auth_is_set():
        asked["FANLINE_AUTH"] = "token"
    events = {"FANLINE_HOOKS_RESPONDER": f"nats:{ANSWER}", "FANLINE_HOOKS_EVENTS": ",".join(EventName)}
    return {**os.environ, **events, **asked}


def _auth_is_set() -> bool:
    with suppress(OSError, tomllib.TOMLDecodeError):
        return "FANLINE_AUTH" in os.environ or "auth" in tomllib.loads(Path("fanline.toml").read_text("utf-8"))
    return False


def _unasked(state: ServeState, required: frozenset[str]) -> ServerNotStarted | None:
    """What is wrong with a server that does not ask this program."""
    missing = sorted(required.difference(state.asks))
    if not missing:
        return None
    settings = " and ".join(f'{_ASKED[subject]}="nats:{subject}"' for subject in missing)
    return ServerNotStarted(f"the server that runs at {state.url} does not ask this program: start it with {settings}")


def _looks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(_LOOK_SECONDS)


def _appears(port: int) -> bool:
    """Whether the port is that of a server which another program is starting."""
    for _ in _looks(RIVAL_SECONDS):
        if server_on(port) is not None:
            return True
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return False
    return False


def _wait_for_control(state: ServeState) -> None:
    path = Path(state_directory(os.environ), control_socket_name(int(state.url.rpartition(":")[2].partition("/")[0])))
    for _ in _looks(CONTROL_SECONDS if state.control else 0.0):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe, socket_address(str(path)) as address:
            probe.connect(address)
            return


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
