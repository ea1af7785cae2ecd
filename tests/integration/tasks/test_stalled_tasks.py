"""What becomes of a task whose producer has gone without a word: it is ended by who may, or by time. Real processes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import fanline
from fanline.protocol.tasks.states import TaskState
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.programs.commands import run_fanline
from tests.support.servers.serve import running_serve

HEARTBEAT = 0.5


async def _say(nats: NatsClient, task: str, event: str, **data: Any) -> None:
    await nats.publish((f"fanline.pub.task.{task}", msgspec.json.encode({"v": 1, "e": f"task_{event}", "d": data})))
    await nats.flush()


async def _until(task: fanline.TaskView, state: TaskState) -> None:
    while task.snapshot.state is not state:
        await anext(task)


async def test_a_stalled_task_expires_when_the_patience_of_its_namespace_is_over(tmp_path: Path) -> None:
    config = tmp_path / "fanline.toml"
    config.write_text("[namespaces.task]\ndurable = true\ntasks = true\nstalled_timeout = 1\n")
    with trio.fail_after(120):
        async with running_serve(extra_args=("--config", str(config))) as serve:
            async with (
                connect_nats(serve.producer_url) as nats,
                fanline.Client(f"ws://127.0.0.1:{serve.port}/ws") as client,
                client.task("gone") as task,
            ):
                await _say(nats, "gone", "started", heartbeat=HEARTBEAT)
                await _until(task, TaskState.STALLED)
                await _until(task, TaskState.TIMED_OUT)
                assert task.snapshot.error == "its producer has been silent for 1 seconds"


async def test_stalled_tasks_without_a_producer_are_ended_on_request_and_others_go_on() -> None:
    with trio.fail_after(120):
        async with (
            running_serve() as serve,
            connect_nats(serve.producer_url) as nats,
            fanline.Client(f"ws://127.0.0.1:{serve.port}/ws") as client,
            client.task("gone") as gone,
            client.task("alive") as alive,
        ):
            await _say(nats, "gone", "started", heartbeat=HEARTBEAT)
            await _say(nats, "alive", "started", heartbeat=60)
            await _until(alive, TaskState.RUNNING)
            await _until(gone, TaskState.STALLED)
            said = b""
            while b"has been ended" not in said:  # the table is published once a second
                ended = await run_fanline(serve, "tasks", "--end-stalled")
                assert (ended.returncode, ended.stderr) == (0, b"")
                said = ended.stdout
            assert said == b"task:gone has been ended\n"
            await _until(gone, TaskState.CANCELLED)
            assert gone.snapshot.forced
            assert alive.snapshot.state is TaskState.RUNNING


@pytest.mark.parametrize("rights", ["sub", "sub+call"])
async def test_only_who_may_cancel_a_task_ends_it(rights: str) -> None:
    with trio.fail_after(120):
        async with running_serve(extra_args=("--auth", "token")) as serve, connect_nats(serve.producer_url) as nats:
            token = await run_fanline(
                serve, "token", "--sub", "ann", "--allow", f"task:*:{rights}", "--allow", "tasks:*:sub"
            )
            url = f"ws://127.0.0.1:{serve.port}/ws"
            async with fanline.Client(url, token=token.stdout.decode().strip()) as client, client.task("gone") as task:
                await _say(nats, "gone", "started", heartbeat=HEARTBEAT)
                await _until(task, TaskState.STALLED)
                if rights == "sub":
                    with pytest.raises(fanline.ServerError, match="permission_denied"):
                        await task.cancel(force=True)
                else:
                    await task.cancel(force=True)
                    await _until(task, TaskState.CANCELLED)
                    assert task.snapshot.by == "ann"
