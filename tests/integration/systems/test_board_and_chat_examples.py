"""The examples of the agent task board and of the sales assistant run as their pages say."""

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.engine.access.clients import SECRET, token
from tests.support.foreign.client import HERE, command
from tests.support.paths import ROOT
from tests.support.serve import Serve, running_serve, serve_environ

EXAMPLES = ROOT / "examples"
SECONDS = 60


class Terminal:
    """A program in Node that writes lines, and may read some."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._unread = b""

    async def lines(self, number: int) -> list[str]:
        assert self.process.stdout is not None
        while self._unread.count(b"\n") < number:
            data = await self.process.stdout.receive_some()
            assert data, self._unread
            self._unread += data
        *found, self._unread = self._unread.split(b"\n", number)
        return [line.decode() for line in found]

    async def type(self, line: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line.encode() + b"\n")


@asynccontextmanager
async def client(example: str, folder: Path, *arguments: str) -> AsyncIterator[Terminal]:
    """The client of an example, in a folder where its package is installed."""
    folder.mkdir()
    (node, _), environ = command("node")
    program = shutil.copy(EXAMPLES / example / "client.mjs", folder)
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    process = await trio.lowlevel.open_process(
        [node, program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    )
    try:
        yield Terminal(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def produce(example: str, serve: Serve, *arguments: str) -> None:
    environ = serve_environ(serve.directory) | {"NATS_URL": serve.producer_url}
    await trio.run_process([sys.executable, str(EXAMPLES / example / "producer.py"), *arguments], env=environ)


async def test_a_board_shows_the_agents_of_its_project_and_what_is_for_everybody(tmp_path: Path) -> None:  # S3-24
    example = "agent_task_board"
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve:
            site = f"ws://127.0.0.1:{serve.port}"
            async with client(example, tmp_path / "7", "7", site) as seven:
                async with client(example, tmp_path / "8", "8", site) as eight:
                    for board in (seven, eight):
                        assert await board.lines(1) == ["connected"]
                    await produce(example, serve, "7")
                    events = ["task_created", "agent_spawned", "plan_generated", "task_status_changed"]
                    shown = await seven.lines(5)  # channels have no common order
                    assert [line.split()[0] for line in shown if line != "all agents are idle"] == events
                    assert await eight.lines(1) == ["all agents are idle"]


async def test_two_people_chat_and_hear_what_their_backend_says(tmp_path: Path) -> None:  # S4-21, S4-24, S4-26
    example, env = "sales_assistant", {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
    rights = {"session:9": ["sub", "pub"]}
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=env) as serve:
            site = f"ws://127.0.0.1:{serve.port}"
            async with client(example, tmp_path / "a", "9", token("anna", channels=rights), site) as anna:
                assert await anna.lines(1) == ["connected"]
                async with client(example, tmp_path / "b", "9", token("bert", channels=rights), site) as bert:
                    assert await bert.lines(1) == ["connected"]
                    assert await anna.lines(1) == ["bert has come"]
                    await anna.type("hello")
                    assert sorted(await bert.lines(2)) == ["anna is typing", "anna: hello"]
                    while (await anna.lines(1)) != ["line 1: read"]:
                        pass
                    await produce(example, serve, "9", "anna")
                    ai = ["AI: processing", "AI: completed"]
                    notice = "warning: Quota, 80 % of this month's messages are used"
                    maintenance = "maintenance, back at noon"
                    assert sorted(await bert.lines(3)) == sorted([*ai, maintenance])
                    assert sorted(await anna.lines(4)) == sorted([*ai, notice, maintenance])
                assert await anna.lines(1) == ["bert has gone"]
