"""The tutorial, followed: its program runs as printed, and leaves no task that goes on for ever."""

import re
import sys
from pathlib import Path

import msgspec
import trio

from tests.support.paths import ROOT
from tests.support.servers.serve import running_serve, serve_environ

PAGE = (ROOT / "docs/tutorial/first-steps.md").read_text()
FANLINE = [sys.executable, "-P", "-m", "fanline"]


async def test_the_task_of_the_tutorial_ends(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (event,) = re.findall(r"^fanline pub task:42 '(.*)' --event task_progress$", PAGE, re.MULTILINE)
    with trio.fail_after(120):
        async with running_serve() as serve:
            environ = serve_environ(serve.directory)

            async def run(*command: str) -> str:
                ended = await trio.run_process(
                    command, capture_stdout=True, capture_stderr=True, check=False, env=environ
                )
                assert (ended.returncode, ended.stderr) == (0, b"")
                return ended.stdout.decode()

            await run(*FANLINE, "pub", "task:42", event, "--event", "task_progress")
            path = tmp_path / "watch.py"
            path.write_text(program.replace(":8080", f":{serve.port}"))
            for _ in range(2):  # a reader may run it again
                said = await run(sys.executable, "-P", str(path))
                assert said.count("task_progress") == 6
                assert said.splitlines()[-1].startswith("task_completed")
            while msgspec.json.decode(await run(*FANLINE, "tasks", "--json"))["tasks"]:
                await trio.sleep(0.1)  # the table is stored once a second
