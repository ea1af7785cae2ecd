"""Viewers of a real server: on joining, live, across lost workers; calls that reach the producer, or say why not."""

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
import trio

import fanline
from fanline.client.task_view import TaskView
from fanline.protocol.tasks.events import TaskEvent
from fanline.protocol.tasks.states import TaskState
from tests.support.servers.serve import Serve, running_serve, serve_environ

FANLINE = [sys.executable, "-P", "-m", "fanline"]


def _job(serve: Serve, name: str) -> fanline.Task:
    return fanline.Task(name, title="A job", nats=serve.producer, heartbeat=5)


async def _until(task: TaskView, kind: TaskEvent) -> None:
    async for update in task:
        if update.kind is kind:
            return
    raise AssertionError(f"{kind} did not come")


async def test_a_viewer_who_joins_late_sees_the_same_task_as_one_who_was_there() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve, AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(fanline.Client(serve.url)) for _ in range(2)]
            early = await stack.enter_async_context(clients[0].task("job"))
            assert early.snapshot.state is TaskState.UNKNOWN
            async with _job(serve, "job") as job:
                for number in range(300):
                    await job.log(f"line {number}")
                await job.progress(40, "halfway", stage="build")
                await _until(early, TaskEvent.PROGRESS)
                late = await stack.enter_async_context(clients[1].task("job", lines=50))
                assert (late.snapshot.percent, late.snapshot.stage) == (40, "build")
                await job.log("to the end", stream="stderr")
                job.result({"files": 7})
            for task in (early, late):
                await _until(task, TaskEvent.COMPLETED)
    assert early.snapshot == late.snapshot
    assert early.snapshot.result == {"files": 7}
    assert list(early.output)[-50:] == list(late.output)
    assert [line.number for line in early.output] == list(range(101, 301))


async def test_viewers_lose_nothing_when_their_worker_is_killed() -> None:
    with trio.fail_after(90):
        async with (
            running_serve() as serve,
            fanline.Client(serve.url) as client,
            client.task("job", lines=1000) as task,
        ):
            async with _job(serve, "job") as job:
                for number in range(200):
                    await job.log(str(number))
                    if number in (50, 120):
                        for pid in serve.worker_pids():
                            os.kill(pid, signal.SIGKILL)
                    await trio.sleep(0.005)
            await _until(task, TaskEvent.COMPLETED)
            async with client.task("job", lines=1000) as fresh:
                assert list(fresh.output) == list(task.output)
                assert fresh.snapshot == task.snapshot
    assert [line.text for line in task.output] == [str(number) for number in range(200)]


async def test_calls_reach_the_producer_and_one_answer_wins() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve, fanline.Client(serve.url) as ann, fanline.Client(serve.url) as ben:
            async with _job(serve, "job") as job, trio.open_nursery() as nursery:
                answers: list[fanline.Answer] = []

                async def ask() -> None:
                    answers.append(await job.ask("deploy?", options=["blue", "green"]))

                async with ann.task("job") as one, ben.task("job") as other:
                    nursery.start_soon(ask)
                    await _until(one, TaskEvent.ASKED)
                    await _until(other, TaskEvent.ASKED)
                    await one.approve(value="green")
                    with pytest.raises(fanline.ServerError) as caught:
                        await other.reject()
                    assert caught.value.code == "already_answered"
                    await _until(other, TaskEvent.ANSWERED)
                    assert other.snapshot.ask is not None
                    assert other.snapshot.ask.value == "green"
    assert [(answer.approved, answer.value) for answer in answers] == [(True, "green")]


async def test_every_viewer_sees_a_cancel_from_the_request_to_the_end() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve, fanline.Client(serve.url) as client, client.task("job") as task:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_sleep_as_task, serve)
                await _until(task, TaskEvent.STARTED)
                await task.cancel(deadline=20)
                kinds = [update.kind async for update in task]
    # That the producer agrees is reported too, unless it stops even sooner.
    seen = [kind for kind in kinds if kind is not TaskEvent.CANCEL_ACCEPTED]
    assert seen == [TaskEvent.CANCEL_REQUESTED, TaskEvent.CANCELLED]
    assert (task.snapshot.state, task.snapshot.forced) == (TaskState.CANCELLED, False)


async def _sleep_as_task(serve: Serve) -> None:
    with pytest.raises(fanline.TaskCancelled):
        async with _job(serve, "job"):
            await trio.sleep_forever()


async def test_a_call_that_cannot_be_made_says_why() -> None:
    with trio.fail_after(90):
        async with running_serve(workers=1) as serve, fanline.Client(serve.url) as client:
            assert await _code(client.call, "task:nope", "cancel") == "unknown_task"
            async with client.task("job") as task:
                async with _job(serve, "job"):
                    await _until(task, TaskEvent.STARTED)
                    assert await _code(task.approve) == "bad_state"
                    assert await _code(task.approve, "no-such-question") == "bad_state"
                await _until(task, TaskEvent.COMPLETED)
                assert await _code(task.cancel) == "task_ended"
            await client.publish("task:orphan", {}, event="task_started")
            assert await _code(client.call, "task:orphan", "cancel") == "no_producer"


async def _code(call: Callable[..., Awaitable[object]], *args: str) -> str:
    with pytest.raises(fanline.ServerError) as caught:
        await call(*args)
    return caught.value.code


async def test_a_command_is_run_tailed_listed_and_stopped_from_the_command_line() -> None:
    with trio.fail_after(90):
        async with running_serve() as serve, trio.open_nursery() as nursery:
            nursery.start_soon(_run, serve, 143, "run", "--task", "job", "--", "sh", "-c", "echo hello; sleep 60")
            async with fanline.Client(serve.url) as client, client.task("job") as task:
                await _until(task, TaskEvent.OUTPUT)
            while not (rows := msgspec.json.decode((await _run(serve, 0, "tasks", "--json")).stdout)["tasks"]):
                await trio.sleep(0.1)
            assert (rows[0]["id"], rows[0]["state"]) == ("job", "running")
            ended = await _run(serve, 0, "tail", "job", "--cancel")
    assert ended.stdout == b"hello\n"
    assert b"asked it to stop" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(b"fanline: cancelled by ")


async def _run(serve: Serve, code: int, *args: str) -> subprocess.CompletedProcess[bytes]:
    ended = await trio.run_process(
        [*FANLINE, *args],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=serve_environ(serve.directory),
    )
    assert ended.returncode == code, ended.stderr
    return ended
