"""The sides of a comparison: our server and its peers, each started for one run."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fanline.loadtest.bench.errors import BenchError
from fanline.loadtest.bench.machine import children
from fanline.loadtest.bench.plan import BALLAST, Plan
from fanline.loadtest.bench.processes import Tool, options, program, running
from fanline.protocol.auth.tokens import sign
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.nats.commands import Login
from fanline.protocol.serve_state import decode_state

READY_SECONDS = 30.0
_SECRET = "of the bench alone, and long enough for SHA-256"


class Side(NamedTuple):
    """A started server, ours or a peer, ready for the plan's subscribers."""

    receiver: dict[str, object]
    """Options for the receivers: where and how to subscribe."""
    pids: tuple[int, ...]
    """The processes that fan out."""
    publishers: tuple[Tool, ...]
    """Each starts after a line on stdin, and answers once it has published everything. None without messages."""
    nats: str = ""
    """The URL of our server's NATS; empty for a peer."""
    login: Login = Login()
    """Of producers."""
    engine_login: Login = Login()
    nats_pids: tuple[int, ...] = ()
    serve_pid: int = 0
    """The supervisor's."""

    @property
    def control_pids(self) -> tuple[int, ...]:
        """The control process, which starts after the server is ready."""
        return children(self.serve_pid, "workers.control")


StartSide = Callable[[Plan, Path], AbstractContextManager[Side]]
"""Starts a server for a plan, with a directory for its files."""


def with_our_packages(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child process that must import the `fanline` that runs here."""
    spec = find_spec("fanline")
    assert spec is not None
    assert spec.origin is not None
    return {**environ, "PYTHONPATH": str(Path(spec.origin).parents[1])}


@contextmanager
def fanline(plan: Plan, directory: Path) -> Iterator[Side]:
    """The real `fanline serve` in `directory`, with a C publisher on its embedded NATS."""
    state_directory = directory / "state"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FANLINE_")}
    secret = {"FANLINE_TOKENS_SECRET": _SECRET} if plan.tokens else {}
    # Without a control process, whose start takes a second of CPU, in which the measurement begins.
    own = {"FANLINE_STATE_DIR": str(state_directory), "FANLINE_CONTROL": "false"}
    environ = with_our_packages(inherited | own | secret | plan.environment)
    command = (sys.executable, "-P", "-m", "fanline.workers", "--port", "0", "--workers", str(plan.workers))
    with ExitStack() as stack:
        serve = stack.enter_context(running([*command, "--data-dir", str(directory / "data")], environ, directory))
        if not (serve.read_line(READY_SECONDS) or b"").startswith(b"fanline ready:"):
            raise BenchError(f"fanline serve was not ready within {READY_SECONDS:g} s")
        (file,) = state_directory.glob("serve-*.json")
        state = decode_state(file.read_bytes())
        url, login = urlsplit(state.url), Login(state.nats_user, state.nats_password)
        receiver: dict[str, object] = {
            "port": url.port,
            "path": url.path,
            "subprotocol": "fanline.v1.json",
            "subscribe": _subscribe(plan.channel),
            "ballast": _subscribe(BALLAST),
            "answer": '"t":"ok"',
        }
        if plan.tokens:
            receiver["tokens"] = _write_tokens(directory / "tokens.txt", plan)
        publishers = tuple(
            stack.enter_context(nats_publisher(subject, traffic, state.nats, login))
            for subject, traffic in plan.publications().items()
        )
        yield Side(
            receiver,
            children(serve.pid, "workers.worker"),
            publishers,
            state.nats,
            login,
            Login(state.engine_user, state.engine_password),
            children(serve.pid, "nats-server"),
            serve.pid,
        )


@contextmanager
def nats_publisher(subject: str, traffic: dict[str, object], nats: str, login: Login) -> Iterator[Tool]:
    """The C publisher, connected to the NATS at `nats` and ready to start."""
    where = {"port": urlsplit(nats).port, "subject": subject}
    with running([program("publisher"), *options(where | traffic)]) as tool:
        log_in(tool, login)
        yield tool


def log_in(tool: Tool, login: Login) -> None:
    """Tell a program in C how to log in to NATS, and wait until it has."""
    tool.send(json.dumps({"user": login.user, "pass": login.password})[1:-1] if login.user else "")
    tool.read(READY_SECONDS)


def _write_tokens(path: Path, plan: Plan) -> Path:
    """A line for each subscriber; no two tokens are the same, as in a storm of users that come back."""
    now, grants = int(time.time()), {f"{plan.namespace}:*": ["sub"]}
    people = ({"sub": f"user-{number}", "jti": f"{number:08x}"} for number in range(plan.subscribers))
    claims = ({**person, "iat": now, "exp": now + 3600, "channels": grants} for person in people)
    path.write_text("".join(f"{sign(each, _SECRET.encode())}\n" for each in claims))
    return path


def _subscribe(channel: str) -> str:
    return encode_json(Envelope(type=MessageType.SUB, channel=channel, id="sub")).decode()
