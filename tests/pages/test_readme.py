"""README.md, followed, and the way from nothing to a task that is watched, timed."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.pages.conftest import Installed
from tests.pages.newcomer import GO_ON, Page, give_makefile, reading
from tests.pages.terminal import TYPED_A_SECOND

pytestmark = pytest.mark.process
ACTIVATE = ". .venv/bin/activate\n"


def test_readme(tmp_path: Path, installed: Installed) -> None:
    with reading("README.md", tmp_path, installed, activated=False) as page:
        page.left_out("make demo", "it installs a clone; tests/integration/cli/test_cli.py runs the demo")
        _watch_a_job(page)
        _answer_and_stop(page)
        _channels(page)
        _any_client(page)
        _browser(page)
        _settings(page)
        _other_machines(page)


def _watch_a_job(page: Page) -> None:
    give_makefile(page.newcomer, "test")
    activate, serve, run, tail, tasks = page.lines(ACTIVATE)
    page.newcomer.serve(f"{activate}\n{serve}")
    second, third = page.newcomer.terminal("second"), page.newcomer.terminal("third")
    second.start(f"{activate}\n{run}", until="[1/2]")
    third.start(f"{activate}\n{tail}", until="[1/2]")
    assert "build" in page.newcomer.terminal("fourth").run(f"{activate}\n{tasks}")
    page.newcomer.give(GO_ON, "")
    second.wait_end()
    third.wait_end()


def _answer_and_stop(page: Page) -> None:
    page.save("build.py", "import asyncio, fanline")
    job, viewer = page.newcomer.terminal("job"), page.newcomer.terminal("third")
    approve, cancel = page.lines("fanline tail task:build-42 --approve")
    for command, state in ((approve, "completed"), (cancel, "cancelled")):
        job.start(f"{ACTIVATE}python build.py", until="")
        viewer.start(f"{ACTIVATE}fanline tail task:build-42", until="Deploy?")
        page.newcomer.terminal("fourth").run(f"{ACTIVATE}{command}")
        assert state in viewer.wait_for(state)
        job.wait_end(exit_code=None)


def _channels(page: Page) -> None:
    python = page.newcomer.terminal("third")
    page.save("hello.py", "import asyncio, fanline")
    assert python.run(f"{ACTIVATE}python hello.py") == "news:all {'title': 'hello'}\n"
    page.save("plain.py", "import fanline\n\nwith fanline.Client")
    assert python.run(f"{ACTIVATE}python plain.py") == "{'title': 'hello'}\n"
    subscribe, publish = page.lines("fanline sub news:all")
    subscriber = page.newcomer.terminal("second")
    subscriber.start(ACTIVATE + subscribe, until="")
    page.newcomer.wait_subscribed("news:all")
    page.newcomer.terminal("third").run(ACTIVATE + publish)
    subscriber.wait_for('{"title":"hello"}')
    page.save("publish.py", "import fanline\n\nfanline.publish")
    python.run(f"{ACTIVATE}python publish.py")
    subscriber.wait_for('{"title":"hello"}', 2)
    subscriber.interrupt()


def _any_client(page: Page) -> None:
    page.save("any.py", "import asyncio, json, nats, os")
    viewer = page.newcomer.terminal("third")
    viewer.start(f"{ACTIVATE}fanline tail task:42 --json", until="")
    url = page.says("export NATS_URL=$(fanline nats-url)")
    page.newcomer.terminal("second").run(f"{ACTIVATE}{url}\npython any.py")
    assert '"stage":"compile"' in viewer.wait_for('"percent":50')
    viewer.interrupt()
    page.left_out("nats pub fanline.pub.task.42", "the nats command is a download of its own")


def _browser(page: Page) -> None:
    page.save("watch.mjs", "const socket = new WebSocket")
    if not _node_has_websockets():
        return
    browser = page.newcomer.terminal("second")
    browser.start(page.says("node watch.mjs"), until="subscribed to task:42")
    page.newcomer.terminal("third").run(f"{ACTIVATE}fanline pub task:42 '{{\"seen\": true}}'")
    browser.wait_for("task:42 {")
    browser.interrupt()


def _node_has_websockets() -> bool:
    node = shutil.which("node")
    return (
        node is not None and subprocess.run([node, "-e", "WebSocket"], capture_output=True, check=False).returncode == 0
    )


def _settings(page: Page) -> None:
    page.save("fanline.toml", "# fanline.toml")
    page.newcomer.terminal("server").interrupt()
    assert "  4 workers  " in page.newcomer.serve(f"{ACTIVATE}fanline serve")
    page.newcomer.terminal("server").interrupt()


def _other_machines(page: Page) -> None:
    serve, token, tail, share, revoke = page.lines("fanline serve --host 0.0.0.0")
    page.newcomer.serve(ACTIVATE + serve)
    elsewhere = tail.replace("192.0.2.7", "127.0.0.1")
    viewer, here = page.newcomer.terminal("second"), page.newcomer.terminal("third")
    page.newcomer.terminal("job").start(f"{ACTIVATE}python build.py", until="")
    viewer.start(f"{ACTIVATE}{token}\n{elsewhere}", until="step 3 ok")
    assert here.run(f"{ACTIVATE}{share}").count(".") == 2
    here.run(f"{ACTIVATE}{revoke}")
    viewer.wait_end(exit_code=1)


def test_a_newcomer_watches_a_task_soon_after_nothing_was_installed(
    tmp_path: Path, installed: Installed, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is typed and waited for is printed; how fast a machine is, is no claim."""
    install = "python3 -m venv .venv\n. .venv/bin/activate\npip install 'dist/fanline-0.1.0-py3-none-any.whl[server]'\n"
    begin = time.monotonic()
    with reading("README.md", tmp_path, installed, activated=False) as page:
        assert page.says(install.splitlines()[-1])
        give_makefile(page.newcomer, "test")
        page.take("make demo")
        activate, serve, run, tail, _ = page.lines(ACTIVATE)
        page.newcomer.serve(f"{activate}\n{serve.partition('#')[0]}")
        page.newcomer.terminal("second").start(f"{activate}\n{run.partition('#')[0]}", until="[1/2]")
        page.newcomer.terminal("third").start(f"{activate}\n{tail.partition('#')[0]}", until="[1/2]")
        waited = time.monotonic() - begin + installed.seconds
        typed = page.newcomer.typed + len(install) / TYPED_A_SECOND
        page.left.clear()
    with capsys.disabled():
        print(f"\nfrom nothing to a watched task: {typed:.0f} s of typing, {waited:.0f} s of waiting")
    assert typed < 180  # the model's, not the machine's
