"""A Redis for tests: a real redis-server if one is on the PATH, the fake one of fakeredis otherwise.

What Fanline promises of a queue, it promises over the real one: its scripts, blocking reads and lost connections are
its own. `.ci/run` installs it. The fake one is for machines that have none.
"""

import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory

import trio

from fanline.workers.supervision.child import Child
from tests.integration.queues.fake_redis import fake_redis
from tests.support.servers.free_port import free_port

_PROGRAM = shutil.which("redis-server")
_SETTINGS = """
port {port}
bind 127.0.0.1
requirepass {password}
dir {directory}
logfile log
save ""
appendonly no
"""
_TRIES = 5  # each with another port, since somebody else may take it before the server does
_START_SECONDS = 30.0


@contextmanager
def running_redis() -> Iterator[str]:
    """Its URL. To be used outside of Trio."""
    with fake_redis() if _PROGRAM is None else _real_redis(_PROGRAM) as url:
        yield url


@contextmanager
def _real_redis(program: str) -> Iterator[str]:
    """Keeps nothing on disk, and ends with the block, or with this process."""
    password = secrets.token_hex(8)  # so that it is no other server that answers at the port
    with TemporaryDirectory(prefix="fanline-redis-") as directory:
        port, server = _started(program, directory, password)
        try:
            yield f"redis://:{password}@127.0.0.1:{port}/0"
        finally:
            server.kill()
            trio.run(server.wait)
            server.close()


def _started(program: str, directory: str, password: str) -> tuple[int, Child]:
    for _ in range(_TRIES):
        port = free_port()
        settings = _SETTINGS.format(port=port, password=password, directory=directory)
        server = Child([program, "-"], stdin=settings.encode())
        end = time.monotonic() + _START_SECONDS
        while server.ending is None and time.monotonic() < end:
            if _answers(port, password):
                return port, server
            time.sleep(0.01)  # it says nowhere that it listens, but in its log
        server.kill()
        trio.run(server.wait)
        server.close()
    raise AssertionError(f"{program} did not start")


def _answers(port: int, password: str) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(f"AUTH {password}\r\n".encode())
        return connection.recv(64).startswith(b"+OK")
    return False
