"""The two files of docs/how-to/receive-in-a-web-page.md, run as they stand there, with Node in place of a browser."""

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

import fanline
from tests.support.faults.fault_proxy import running_proxy
from tests.support.foreign.client import HERE, node
from tests.support.foreign.programs import Lines, running
from tests.support.paths import ROOT
from tests.support.servers.serve import Serve, running_serve
from tests.test_docs import blocks_of

PAGE = ROOT / "docs" / "how-to" / "receive-in-a-web-page.md"
FOLLOW = """
import {{ live }} from "./live.js";
live({url}, {channels}, {{
  receive: (message) => console.log(JSON.stringify(message)),
  tell: (text) => console.log(JSON.stringify({{ told: text }})),
}});
"""
SHOW = "setInterval(() => console.log(JSON.stringify(shown())), 50);"


class Page(Lines):
    """What a page prints, and its life."""

    def __init__(self, process: trio.Process) -> None:
        super().__init__(process)
        self.signal = process.send_signal


@asynccontextmanager
async def _run(directory: Path, code: str) -> AsyncIterator[Page]:
    """A module beside live.js."""
    binary = node()
    (live,) = (block.code for block in blocks_of(PAGE) if block.language == "js")
    (directory / "live.js").write_text(live)
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / "page.js").write_text(code)
    async with running([binary, str(HERE / "page.mjs"), str(directory / "page.js")], {**os.environ}) as process:
        yield Page(process)


def _following(url: str, channel: str, **start: Any) -> str:
    return FOLLOW.format(url=json.dumps(url), channels=json.dumps({channel: start}))


async def _next(lines: Lines, **like: Any) -> Any:
    """The next line that has these values."""
    while True:
        message = json.loads(await lines.receive())
        if like.items() <= message.items():
            return message


async def _publish(client: fanline.Client, numbers: range) -> None:
    for number in numbers:
        await client.publish("doc:1", number, deduplication_id=f"number--{number:016}")


async def _numbers(lines: Lines, count: int) -> list[Any]:
    """The data of as many messages, and what else comes in between but for what is told."""
    taken = list[Any]()
    while len(taken) < count:
        message = json.loads(await lines.receive())
        if "told" not in message:
            taken.append(message["d"] if message["t"] == "pub" else message)
    return taken


async def test_the_page_gets_every_message_once_through_killed_workers_and_a_restart_of_the_server(
    tmp_path: Path,
) -> None:
    with trio.fail_after(150):
        async with running_serve() as serve, fanline.Client(serve.url) as client:
            async with _run(tmp_path, _following(serve.url, "doc:1")) as lines:
                await _next(lines, told="connected")
                await _until_heard(client, lines)
                await _publish(client, range(10))
                _kill_workers(serve)
                await _publish(client, range(10, 20))
                assert await _numbers(lines, 20) == list(range(20))
                os.kill(serve.pid, signal.SIGTERM)
                await serve.start_again()
                await _publish(client, range(20, 30))
                assert await _numbers(lines, 10) == list(range(20, 30))


async def _until_heard(client: fanline.Client, lines: Lines) -> None:
    """The page does not say when it is subscribed."""
    heard = trio.Event()

    async def publish() -> None:
        while not heard.is_set():
            await client.publish("doc:1", "heard?")
            await trio.sleep(0.05)
        await client.publish("doc:1", "begin")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish)
        await _next(lines, d="heard?")
        heard.set()
        await _next(lines, d="begin")


def _kill_workers(serve: Serve) -> None:
    for pid in serve.worker_pids():
        os.kill(pid, signal.SIGKILL)


async def test_what_is_no_longer_stored_is_a_gap_and_the_page_goes_on_behind_it(tmp_path: Path) -> None:
    config = tmp_path / "fanline.toml"
    config.write_text("[namespaces.doc]\ndurable = true\nhistory = 3\n")
    with trio.fail_after(150):
        async with (
            running_serve(1, ("--config", str(config))) as serve,
            running_proxy(("127.0.0.1", serve.port), seed=0) as proxy,
            fanline.Client(serve.url) as client,
            _run(tmp_path, _following(f"ws://127.0.0.1:{proxy.port}/ws", "doc:1", start=True)) as page,
        ):
            await _publish(client, range(1))
            assert await _numbers(page, 1) == [0]
            page.signal(signal.SIGSTOP)  # so that it cannot come back too soon
            proxy.cut_all()
            await _publish(client, range(1, 10))
            page.signal(signal.SIGCONT)
            gap, *rest = await _numbers(page, 4)
            assert (gap["t"], gap["d"]["reason"], rest) == ("gap", "expired", [7, 8, 9])
            proxy.cut_all()
            await _publish(client, range(10, 12))
            assert await _numbers(page, 2) == [10, 11]


async def test_a_subscription_that_is_refused_is_told(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with running_serve(1) as serve, _run(tmp_path, _following(serve.url, "doc:a b")) as lines:
            await _next(lines, told="connected")
            told = json.loads(await lines.receive())["told"]
            assert "not a channel name" in told
            assert "bad_channel" in told


async def test_the_page_shows_a_task_from_its_snapshot_to_its_end(tmp_path: Path) -> None:
    (page,) = (block.code for block in blocks_of(PAGE) if block.language == "html")
    found = re.search(r'<script type="module">\n(.*)</script>', page, re.DOTALL)
    assert found
    with trio.fail_after(90):
        async with running_serve(1) as serve, fanline.Client(serve.url) as client:
            await _report(client, "task_started", title="Build 42")
            await _report(client, "task_output", lines=["[1/2] compile"])
            code = found[1].replace("ws://127.0.0.1:8080/ws", serve.url)
            async with _run(tmp_path, code + SHOW) as lines:
                await _shown(lines, title="Build 42", state="running", log="[1/2] compile\n", connection="connected")
                await _report(client, "task_output", lines=["<b>[2/2]</b> link"])
                await _report(client, "task_progress", percent=50)
                await _shown(lines, state="running", log="[1/2] compile\n<b>[2/2]</b> link\n", bar=50)
                await _report(client, "task_completed", result=1)
                await _shown(lines, state="completed", bar=100)


async def _report(client: fanline.Client, event: str, **data: Any) -> None:
    await client.publish("task:build-42", data, event=event)


async def _shown(lines: Lines, **expected: Any) -> None:
    """Wait until the page shows these values in its elements."""
    while True:
        elements = json.loads(await lines.receive())
        seen = {name: each.get("value", each["textContent"]) for name, each in elements.items()}
        if expected.items() <= seen.items():
            return
