"""docs/tutorial/first-steps.md, followed."""

from pathlib import Path

import pytest

from tests.pages.conftest import Installed
from tests.pages.newcomer import Page, reading
from tests.support.servers.serve import children_of

pytestmark = pytest.mark.process
ACTIVATE = ". .venv/bin/activate\n"


def test_first_steps(tmp_path: Path, installed: Installed) -> None:
    with reading("docs/tutorial/first-steps.md", tmp_path, installed, activated=False) as page:
        page.left_out("make demo SECONDS=20", "it installs a clone; tests/integration/cli/test_cli.py runs the demo")
        _start_a_server(page)
        _subscribe_and_publish(page)
        _run_the_program(page)
        _watch_a_job(page)
        _lose_a_worker(page)
        assert "worker" in page.newcomer.terminal("server").interrupt()


def _start_a_server(page: Page) -> None:
    said = page.serve(ACTIVATE + "fanline serve").strip().split("  ")
    shown = page.newcomer.own(page.take("fanline ready: ")).split("  ")
    said[2] = shown[2]  # the port of NATS is drawn
    assert said == shown


def _subscribe_and_publish(page: Page) -> None:
    page.start(ACTIVATE + "fanline sub task:42", terminal="second", until="")
    page.newcomer.wait_subscribed("task:42")
    page.run(ACTIVATE + "fanline pub task:42", terminal="third")
    page.newcomer.terminal("second").wait_for(page.take("task:42  task_progress"))


def _run_the_program(page: Page) -> None:
    page.save("watch.py", "import asyncio")
    said = page.newcomer.terminal("third").run(ACTIVATE + page.says("python watch.py"))
    assert said.splitlines()[-1].startswith("task_completed")
    page.newcomer.terminal("second").wait_for("task_completed")


def _watch_a_job(page: Page) -> None:
    second, third = page.newcomer.terminal("second"), page.newcomer.terminal("third")
    third.start(ACTIVATE + page.take("fanline run --task count"), until="[2/60]")
    second.interrupt()
    tail = page.take("fanline tail task:count")
    second.start(ACTIVATE + tail, until="[3/60]")
    second.interrupt()
    assert "count" in page.newcomer.terminal("fourth").run(ACTIVATE + page.says("fanline tasks") + " --once")
    second.run(ACTIVATE + page.says("fanline tail task:count --cancel"))
    third.wait_end(128 + 15)


def _lose_a_worker(page: Page) -> None:
    server, second, third = (page.newcomer.terminal(name) for name in ("server", "second", "third"))
    second.start(ACTIVATE + page.says("fanline sub doc:42"), until="")
    page.newcomer.wait_subscribed("doc:42")
    find, kill, publish = page.lines("pgrep -af")
    found = {line.partition(" ")[0] for line in third.run(find).splitlines()}
    ours = [pid for pid, _ in children_of(page.newcomer.supervisor()) if str(pid) in found]
    assert len(ours) == 2, found
    third.run(kill.replace("PID", str(ours[0])))
    third.run(ACTIVATE + publish)
    server.wait_for("is back")
    second.wait_for("still there")
