"""The producers of docs/how-to/tasks-from-any-language.md, each really run: what they report, and that they stop."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.nats.client import connect_nats
from tests.support.paths import ROOT
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import Serve, running_serve

EXAMPLES = ROOT / "examples" / "tasks"
PAGE = ROOT / "docs" / "how-to" / "tasks-from-any-language.md"
FILES = ["python/producer.py", "node/producer.mjs", "go/main.go", "shell/producer.sh", "shell/bare.sh"]
STEPS = 4
UNTIL_PROGRESS = ["task_started", "task_output", "task_progress"]
SECONDS = 90.0

Command = Callable[[Path], list[str]]


def python(directory: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / "python" / "producer.py")]


def node(directory: Path) -> list[str]:
    binary = shutil.which("node")
    if binary is None or not (EXAMPLES / "node" / "node_modules").is_dir():
        pytest.skip("needs node and the modules of examples/tasks/node (npm ci there; make test does it)")
    return [binary, str(EXAMPLES / "node" / "producer.mjs")]


def go(directory: Path) -> list[str]:
    """The program is built here, since `go run` hides its process."""
    # The folder that Go's own installer uses is often not on the PATH.
    binary = shutil.which("go", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/go/bin"]))
    if binary is None:
        pytest.skip("needs go")
    environ = os.environ | {"GOTOOLCHAIN": "local"}
    build = [binary, "build", "-o", str(directory / "producer"), "."]
    built = subprocess.run(build, cwd=EXAMPLES / "go", env=environ, capture_output=True, text=True, check=False)
    if built.returncode and ("go: downloading" in built.stderr or "requires go" in built.stderr):
        pytest.skip(f"the Go modules cannot be downloaded here: {built.stderr.splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    return [str(directory / "producer")]


def shell(directory: Path) -> list[str]:
    """Uses the real `nats` command, or a stand-in that takes the same arguments if there is none."""
    if shutil.which("nats") is None:
        stand_in = directory / "nats"
        stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tests.support.nats.command "$@"\n')
        stand_in.chmod(0o755)
    return [str(EXAMPLES / "shell" / "producer.sh")]


def bash(directory: Path) -> list[str]:
    return [str(EXAMPLES / "shell" / "bare.sh")]


@pytest.mark.parametrize("command", [python, node, go, shell, bash], ids=lambda command: command.__name__)
async def test_viewers_see_a_producer_step_by_step_and_can_stop_it(command: Command, tmp_path: Path) -> None:
    args = command(tmp_path)
    with trio.fail_after(SECONDS):
        async with running_serve(workers=1) as serve:
            async with (
                connect("127.0.0.1", serve.port) as viewer,
                connect_nats(serve.engine_url) as bus,
            ):
                await bus._stream.send_all(b"SUB fanline.beat.task.> 2\r\n")
                await bus.flush()
                for channel in ("task:counts", "task:stops"):
                    await viewer.ask({"t": "sub", "c": channel, "i": "1", "d": {"snapshot": True}})
                    # Only with the snapshot is it certain that no event is missed.
                    assert (await viewer.json())["e"] == "task_snapshot"
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_to_its_end, [*args, "counts", str(STEPS)], serve, tmp_path)
                    nursery.start_soon(run_to_its_end, [*args, "stops", "100000"], serve, tmp_path)
                    counts, stops = await watch(viewer)
                await receive_a_heartbeat(bus, "counts")
    assert counts[0][1]["title"].startswith("Counting in ")
    assert counts[1:] == [*steps(STEPS), ("task_completed", {"state": "completed", "result": {"counted": STEPS}})]
    assert "task_cancel_requested" in [event for event, _ in stops]
    assert stops[-1][1]["state"] == "cancelled"


async def run_to_its_end(args: list[str], serve: Serve, directory: Path) -> None:
    """Run a producer, which must succeed."""
    paths = os.pathsep.join([str(directory), os.environ["PATH"]])
    url = serve.producer_url
    environ = os.environ | {"NATS_URL": url, "PATH": paths, "PYTHONPATH": str(ROOT)}
    await trio.run_process(args, env=environ, check=True)


async def watch(viewer: RawClient) -> tuple[list[Any], list[Any]]:
    """What both tasks report. The second one is asked to stop at its first progress, and must agree."""
    told: dict[str, list[Any]] = {"task:counts": [], "task:stops": []}
    agreed = False
    ends = {"task_completed", "task_cancelled"}
    while not agreed or not all(events and events[-1][0] in ends for events in told.values()):
        message = await viewer.json()
        if message["t"] != "pub":
            assert message["t"] == "ok", message
            agreed = agreed or message["i"] == "cancel"
        elif message["e"] != "task_snapshot":
            events = told[message["c"]]
            events.append((message["e"], known(message["d"])))
            if events is told["task:stops"] and [event for event, _ in events] == UNTIL_PROGRESS:
                call = {"t": "call", "c": "task:stops", "i": "cancel", "e": "cancel", "d": {"by": "ann"}}
                await viewer.say(call)
    return told["task:counts"], told["task:stops"]


def known(data: dict[str, Any]) -> dict[str, Any]:
    """The data that does not depend on time."""
    return {key: value for key, value in data.items() if key not in ("rate", "eta", "attempt")}


def steps(count: int) -> list[tuple[str, dict[str, Any]]]:
    told: list[tuple[str, dict[str, Any]]] = []
    for step in range(1, count + 1):
        told += [
            ("task_output", {"state": "running", "lines": [f"step {step} is done"], "first": step - 1}),
            (
                "task_progress",
                {
                    "state": "running",
                    "percent": 100 * step / count,
                    "done": step,
                    "total": count,
                    "stage": "counting",
                },
            ),
        ]
    return told


async def receive_a_heartbeat(bus: Any, task_id: str) -> None:
    while f"MSG fanline.beat.task.{task_id} ".encode() not in await bus._line():  # MSG, or HMSG with headers
        pass


@pytest.mark.parametrize("file", FILES)
def test_the_page_shows_exactly_these_files(file: str) -> None:
    code = (EXAMPLES / file).read_text(encoding="utf-8")
    assert f"\n{code}```\n" in PAGE.read_text(encoding="utf-8")
