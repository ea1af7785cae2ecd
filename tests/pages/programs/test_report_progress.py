"""The Python of docs/how-to/report-progress.md does what the page says."""

import sys

import pytest
import trio

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.servers.serve import running_serve, serve_environ
from tests.test_docs import Block, blocks

PAGE = [block for block in blocks("python") if block.page.name == "report-progress.md"]
ENDS = (TaskEvent.COMPLETED, TaskEvent.FAILED, TaskEvent.CANCELLED)


@pytest.mark.parametrize("block", PAGE, ids=str)
async def test_a_block_runs_and_completes_its_task(block: Block) -> None:
    task_id = block.code.partition('Task("')[2].partition('"')[0]
    events: list[str | None] = []

    async def watch() -> None:
        async with fanline.Client(serve.url) as client, client.subscribe(f"task:{task_id}", start=True) as messages:
            async for message in messages:
                events.append(message.event)
                if message.event == TaskEvent.ASKED:
                    await client.call(f"task:{task_id}", "approve", {"ask": message.data["ask"]})
                if message.event in ENDS:
                    return

    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, trio.open_nursery() as nursery:
            if task_id:
                nursery.start_soon(watch)
            command = [sys.executable, "-P", "-W", "error", "-c", block.code]
            ended = await trio.run_process(
                command, env=serve_environ(serve.directory), capture_stdout=True, capture_stderr=True, check=False
            )
            assert ended.returncode == 0, ended.stderr.decode()
    assert events[-1:] == ([TaskEvent.COMPLETED] if task_id else [])


async def test_a_progress_bar_in_a_script_is_a_task_that_viewers_can_watch() -> None:
    script = "import fanline; bar = fanline.tqdm('abc', desc='Training'); print(bar.task.id); list(bar)"
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve:
            command = [sys.executable, "-P", "-W", "error", "-c", script]
            ended = await trio.run_process(
                command, env=serve_environ(serve.directory), capture_stdout=True, capture_stderr=True
            )
            async with fanline.Client(serve.url) as client, client.task(ended.stdout.decode().strip()) as task:
                snapshot = task.snapshot
    assert (snapshot.state, snapshot.title, snapshot.done, snapshot.total) == ("completed", "Training", 3, 3)
    assert b"Training: 100%" in ended.stderr
