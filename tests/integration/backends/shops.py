"""The shops of examples/backends, as their pages tell to run them, beside a server with their settings."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio

from fanline.protocol.serve_state import control_socket_name
from tests.support.paths import ROOT
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve, wait_until
from tests.support.tasks.stored import in_thread

BACKENDS = ROOT / "examples" / "backends"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECONDS = 60.0


class Answer(NamedTuple):
    status: int
    value: Any


class Shop(NamedTuple):
    """A backend that answers HTTP, and the server that it uses."""

    serve: Serve
    port: int

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """What it answers. OSError if it does not."""
        answer: Answer = await in_thread(lambda: self._ask(method, path, body, headers or {}))
        return answer

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with closing(connection):
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            payload = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return Answer(answer.status, json.loads(payload) if is_json else None)


@asynccontextmanager
async def serving(
    name: str, directory: Path, port: int = 8000, env: Mapping[str, str] | None = None
) -> AsyncIterator[Serve]:
    """The server with the settings of a shop, whose webhook is on this port."""
    settings = (BACKENDS / name / "fanline.toml").read_text()
    (directory / "fanline.toml").write_text(settings.replace(":8000/", f":{port}/"))
    (directory / "shop.py").write_text((BACKENDS / name / "shop.py").read_text())
    env = {"FANLINE_CONTROL": "true", **(env or {})}
    async with running_serve(1, env=env, prefix=("env", "-C", str(directory))) as serve:
        await wait_until(lambda: _has_control(serve), SECONDS)  # nobody waits for it when a server starts
        yield serve


def _has_control(serve: Serve) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(serve.state_directory / control_socket_name(serve.port))) == 0


async def _kill(process: trio.Process) -> None:
    """At once, with the processes that it has started: a worker of Celery takes its time to end."""
    os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def running(command: Sequence[str], directory: Path, serve: Serve, **environ: str) -> AsyncIterator[trio.Process]:
    """A program of the shop, in the working directory of its server."""
    env = {**os.environ, **serve.environ, "WEBHOOK_SECRET": SECRET, **environ}
    env["PYTHONPATH"] = os.pathsep.join((str(directory), env["PYTHONPATH"]))
    run = partial(trio.run_process, [sys.executable, *command], env=env, cwd=directory, check=False)
    apart = partial(run, stdin=subprocess.DEVNULL, start_new_session=True, deliver_cancel=_kill)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(apart)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def shop(name: str, command: Sequence[str], directory: Path, port: int) -> AsyncIterator[Shop]:
    """A shop that answers."""
    async with serving(name, directory, port) as serve, running(command, directory, serve):
        found = Shop(serve, port)
        with trio.fail_after(SECONDS):
            while not await _is_ready(found):
                await trio.sleep(0.1)
        yield found


async def _is_ready(found: Shop) -> bool:
    """Whether it answers, and the server's control process as well."""
    try:
        return (await found.ask("GET", "/online")).status == 200
    except OSError:
        return False


@asynccontextmanager
async def customer(serve: Serve, user: str) -> AsyncIterator[RawClient]:
    """Who looks at the shop."""
    async with connect("127.0.0.1", serve.port, subprotocol=None) as client:
        await client.say({"type": "connect", "user_id": user})
        await client.say({"type": "subscribe", "channel": "project:shop"})
        assert (await heard(client, "subscription_result"))["subscription_result"]["subscribed"]
        yield client


async def heard(client: RawClient, *kinds: str) -> dict[str, dict[str, Any]]:
    """Messages of these types, in any order and among others."""
    found: dict[str, dict[str, Any]] = {}
    with trio.fail_after(SECONDS):
        while not found.keys() >= set(kinds):
            message = await client.json()
            found[message["type"]] = message
    return found
