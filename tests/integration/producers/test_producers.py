"""Jobs that report as tasks, in sync code, under asyncio and under Trio, against a real server and its NATS."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

import fanline
from fanline.producer.run.producer import Producer
from tests.support.nats.client import connect_nats
from tests.support.nats.server import running_nats
from tests.support.servers.serve import Serve, children_of, running_serve, wait_until
from tests.support.tasks.stored import (
    SECONDS,
    STREAM,
    StoredTasks,
    events_of,
    in_thread,
    lines_of,
    running_stream,
    served_tasks,
)

Job = Callable[[fanline.Task], None]


# --- one job in three styles --------------------------------------------------------------------------------------


def _sync_job(task: fanline.Task) -> None:
    with task as t:
        t.progress(10, "begin", stage="one")
        t.log("a\nb")
        t.log("oops", stream="stderr")
        t.pause("wait")
        t.resume()
        for _ in t.track([1, 2, 3], stage="two"):
            pass
        t.result({"made": 3})


async def _async_job(task: fanline.Task) -> None:
    async with task as t:
        await t.progress(10, "begin", stage="one")
        t.log("a\nb")
        await t.log("oops", stream="stderr")
        await t.pause("wait")
        t.resume()
        for _ in t.track([1, 2, 3], stage="two"):
            pass
        t.result({"made": 3})


def _asyncio_job(task: fanline.Task) -> None:
    asyncio.run(_async_job(task))


def _trio_job(task: fanline.Task) -> None:
    trio.run(_async_job, task)


STYLES = pytest.mark.parametrize("job", [_sync_job, _asyncio_job, _trio_job])


@STYLES
async def test_every_style_stores_the_same_events(job: Job) -> None:
    async with running_serve(workers=1) as serve, served_tasks(serve) as nats:
        task = fanline.Task("job", title="A job", kind="test", heartbeat=9, timeout=60, nats=nats.url)
        await in_thread(lambda: job(task))
        assert events_of(await nats.stored("job")) == [
            ("task_started", {"attempt": 1, "title": "A job", "kind": "test", "heartbeat": 9, "timeout": 60}),
            ("task_progress", {"attempt": 1, "percent": 10, "message": "begin", "stage": "one"}),
            ("task_output", {"attempt": 1, "lines": ["a", "b"], "stream": "stdout"}),
            ("task_output", {"attempt": 1, "lines": ["oops"], "stream": "stderr"}),
            ("task_paused", {"attempt": 1, "message": "wait"}),
            ("task_resumed", {"attempt": 1}),
            ("task_progress", {"attempt": 1, "done": 3, "total": 3, "stage": "two"}),
            ("task_completed", {"attempt": 1, "result": {"made": 3}}),
        ]


def _sync_body(task: fanline.Task, body: Callable[[], None]) -> None:
    with task:
        body()


def _asyncio_body(task: fanline.Task, body: Callable[[], None]) -> None:
    async def main() -> None:
        async with task:
            body()

    asyncio.run(main())


def _trio_body(task: fanline.Task, body: Callable[[], None]) -> None:
    async def main() -> None:
        async with task:
            body()

    trio.run(main)


BODIES = pytest.mark.parametrize("run", [_sync_body, _asyncio_body, _trio_body])


@BODIES
async def test_an_exception_fails_the_task_and_propagates(run: Callable[..., None]) -> None:
    def body() -> None:
        raise ValueError("no such file")

    async with running_stream() as (_, nats):
        with pytest.raises(ValueError, match="no such file"):
            await in_thread(lambda: run(fanline.Task("job", nats=nats.url), body))
        assert events_of(await nats.stored("job"))[-1] == (
            "task_failed",
            {"attempt": 1, "error": "ValueError: no such file"},
        )


@BODIES
async def test_ctrl_c_cancels_the_task(run: Callable[..., None]) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    async with running_stream() as (_, nats):
        with pytest.raises(KeyboardInterrupt):
            await in_thread(lambda: run(fanline.Task("job", nats=nats.url), body))
        assert await nats.wait_for("job", "task_cancelled") == {"attempt": 1}


async def test_a_cancellation_from_outside_cancels_the_task_and_propagates_unchanged() -> None:
    async def main(task: fanline.Task) -> None:
        async with task:
            await asyncio.sleep(60)

    async def main_with_timeout(task: fanline.Task) -> None:
        await asyncio.wait_for(main(task), 0.05)

    async with running_stream() as (_, nats):
        with pytest.raises(TimeoutError):
            await in_thread(lambda: asyncio.run(main_with_timeout(fanline.Task("one", nats=nats.url))))
        with trio.move_on_after(0.05) as scope:
            async with fanline.Task("two", nats=nats.url):
                await trio.sleep(60)
        assert scope.cancelled_caught
        for task in ("one", "two"):
            assert await nats.wait_for(task, "task_cancelled") == {"attempt": 1}


# --- calls of viewers ---------------------------------------------------------------------------------------------


def _sync_loop(task: fanline.Task) -> None:
    with task as t:
        while True:
            time.sleep(0.001)
            t.progress(50)


def _asyncio_loop(task: fanline.Task) -> None:
    async def main() -> None:
        async with task:
            await asyncio.sleep(60)

    asyncio.run(main())


def _trio_loop(task: fanline.Task) -> None:
    async def main() -> None:
        async with task, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 60)

    trio.run(main)


@pytest.mark.parametrize("job", [_sync_loop, _asyncio_loop, _trio_loop])
async def test_a_viewers_cancel_ends_the_job(job: Job) -> None:
    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        ended = trio.Event()

        async def work() -> None:
            with pytest.raises(fanline.TaskCancelled) as caught:
                await in_thread(lambda: job(fanline.Task("job", nats=nats.url)))
            assert caught.value.by == "ann"
            ended.set()

        nursery.start_soon(work)
        await nats.wait_for("job", "task_started")
        assert await nats.call("job", "cancel") == {"v": 1, "t": "ok"}
        with trio.fail_after(SECONDS):
            await ended.wait()
        assert await nats.wait_for("job", "task_cancelled") == {"attempt": 1, "by": "ann"}


async def test_an_asyncio_task_can_continue_after_a_viewers_cancel() -> None:
    async def main(task: fanline.Task) -> int:
        with pytest.raises(fanline.TaskCancelled):
            async with task:
                await asyncio.sleep(60)
        await asyncio.sleep(0)
        current = asyncio.current_task()
        assert current is not None
        return current.cancelling()

    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        left = list[int]()

        async def work() -> None:
            left.append(await in_thread(lambda: asyncio.run(main(fanline.Task("job", nats=nats.url)))))

        nursery.start_soon(work)
        await nats.wait_for("job", "task_started")
        await nats.call("job", "cancel", {"by": "bob"})
        assert (await nats.wait_for("job", "task_cancelled"))["by"] == "bob"
    assert left == [0]


def _sync_asks(task: fanline.Task, **question: Any) -> fanline.Answer:
    with task as t:
        return t.ask("Deploy?", **question)


async def _async_asks(task: fanline.Task, question: dict[str, Any]) -> fanline.Answer:
    async with task as t:
        return await t.ask("Deploy?", **question)


ASKS = pytest.mark.parametrize(
    "ask",
    [
        _sync_asks,
        lambda task, **question: asyncio.run(_async_asks(task, question)),
        lambda task, **question: trio.run(_async_asks, task, question),
    ],
    ids=["sync", "asyncio", "trio"],
)


@ASKS
async def test_a_question_is_answered_once(ask: Callable[..., fanline.Answer]) -> None:
    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        answers = list[fanline.Answer]()

        async def work() -> None:
            answers.append(await in_thread(lambda: ask(fanline.Task("job", nats=nats.url), options=["now", "later"])))

        nursery.start_soon(work)
        asked = await nats.wait_for("job", "task_confirmation_required")
        assert asked | {"ask": "x"} == {
            "attempt": 1,
            "ask": "x",
            "text": "Deploy?",
            "kind": "approve",
            "options": ["now", "later"],
        }
        answer = {"ask": asked["ask"], "value": "later", "by": "bob"}
        assert await nats.call("job", "approve", answer) == {"v": 1, "t": "ok"}
        await nats.wait_for("job", "task_completed")
        assert [envelope["e"] for envelope in await nats.stored("job")][1:] == [
            "task_confirmation_required",
            "task_completed",
        ]
    assert answers == [fanline.Answer(approved=True, value="later", by="bob")]


@ASKS
async def test_a_question_without_an_answer_expires(ask: Callable[..., fanline.Answer]) -> None:
    async with running_stream() as (_, nats):
        with pytest.raises(fanline.AskExpired, match="Deploy"):
            await in_thread(lambda: ask(fanline.Task("job", nats=nats.url), kind="input", deadline=0.01))
        assert [envelope["e"] for envelope in await nats.stored("job")][1:] == [
            "task_confirmation_required",
            "task_resumed",
            "task_failed",
        ]


def _sync_takes_calls(task: fanline.Task) -> None:
    with task as t:
        for call in t.calls():
            if call.verb == "cancel":
                call.refuse("not now")
            else:
                call.answer({"heard": call.data, "from": call.by})
            if call.verb == "stop":
                return


async def _async_takes_calls(task: fanline.Task) -> None:
    async with task as t:
        async for call in t.calls():
            if call.verb == "cancel":
                await call.refuse("not now")
            else:
                await call.answer({"heard": call.data, "from": call.by})
            if call.verb == "stop":
                return


@pytest.mark.parametrize(
    "job",
    [
        _sync_takes_calls,
        lambda task: asyncio.run(_async_takes_calls(task)),
        lambda task: trio.run(_async_takes_calls, task),
    ],
    ids=["sync", "asyncio", "trio"],
)
async def test_a_job_that_takes_calls_decides_about_them_itself(job: Job) -> None:
    async with running_stream() as (_, nats), trio.open_nursery() as nursery:
        nursery.start_soon(in_thread, lambda: job(fanline.Task("job", nats=nats.url)))
        await nats.wait_for("job", "task_started")
        refused = {"v": 1, "t": "err", "d": {"code": "refused", "message": "not now"}}
        assert await nats.call("job", "cancel") == refused
        heard = {"v": 1, "t": "ok", "d": {"heard": [1, None], "from": "ann"}}
        assert await nats.call("job", "paint", [1, None]) == heard
        assert (await nats.call("job", "input", {"value": 3}))["d"]["heard"] == {"value": 3}
        await nats.call("job", "stop")
        await nats.wait_for("job", "task_completed")


async def test_a_verb_that_a_task_does_not_support_is_refused() -> None:
    async with running_stream() as (_, nats), fanline.Task("job", nats=nats.url):
        await nats.wait_for("job", "task_started")
        answer = await nats.call("job", "paint")
        assert answer["d"]["message"] == "this task does not support `paint`"


# --- attempts and heartbeats ---------------------------------------------------------------------------------------


async def test_the_next_run_is_the_next_attempt_even_right_after_the_last() -> None:
    def runs(url: str) -> list[int | None]:
        attempts = []
        for _ in range(3):
            with fanline.Task("job", nats=url) as task:
                task.log("x")
            attempts.append(task.attempt)
        return attempts

    async with running_stream() as (_, nats):
        assert await in_thread(lambda: runs(nats.url)) == [1, 2, 3]
        assert [envelope["d"]["attempt"] for envelope in await nats.stored("job")] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_the_task_record_gives_the_attempt_when_the_messages_are_gone() -> None:
    bucket = {"name": "KV_fanline_tasks", "subjects": ["$KV.fanline_tasks.>"], "allow_direct": True}
    async with running_stream() as (_, nats):
        await nats.client.api("STREAM.CREATE", bucket, "KV_fanline_tasks")
        for task, state in (("again", "failed"), ("first", "queued")):
            snapshot = msgspec.json.encode({"snapshot": {"state": state, "attempt": 4}})
            await nats.client.publish((f"$KV.fanline_tasks.task.{task}", snapshot))
        await nats.client.flush()
        for task, attempt in (("again", 5), ("first", 4)):
            await in_thread(lambda task=task: _sync_job(fanline.Task(task, nats=nats.url)))  # type: ignore[misc]
            assert (await nats.wait_for(task, "task_started"))["attempt"] == attempt


async def test_heartbeats_continue_while_the_jobs_own_event_loop_is_busy() -> None:
    async with running_stream() as (server, nats), connect_nats(server.url) as listener, trio.open_nursery() as nursery:
        busy, enough = threading.Event(), threading.Event()

        async def main() -> None:
            async with fanline.Task("job", heartbeat=0.03, nats=nats.url):
                busy.set()
                enough.wait(SECONDS)  # blocks the loop

        await listener._stream.send_all(b"SUB fanline.beat.task.job 9\r\n")
        await listener.flush()
        nursery.start_soon(in_thread, lambda: asyncio.run(main()))
        await trio.to_thread.run_sync(busy.wait)
        with trio.fail_after(SECONDS):
            for _ in range(20):
                while not (await listener._line()).startswith(b"MSG fanline.beat.task.job 9"):
                    pass
        enough.set()


# --- when NATS is unreachable -------------------------------------------------------------------------------------


async def test_an_outage_neither_delays_the_job_nor_loses_events(caplog: pytest.LogCaptureFixture) -> None:
    async with running_stream() as (server, nats):
        async with fanline.Task("job", nats=nats.url, linger=SECONDS) as task:
            task.log("before")
            await nats.wait_for("job", "task_output")
            assert server._process is not None
            server._process.send_signal(signal.SIGSTOP)
            task.log("sent and not stored")
            producer = task._producer
            assert isinstance(producer, Producer)
            await wait_until(lambda: producer.due == float("inf"))
            server.kill()
            for number in range(500):
                await task.log(str(number))
            task.pause()
        assert task.dropped == 0  # and the block has ended, with the server still gone
        await server.start()
        async with connect_nats(server.url) as client:
            again = StoredTasks(server.url, "", client)
            await again.wait_for("job", "task_completed")
            stored = await again.stored("job")
    assert lines_of(stored) == ["before", "sent and not stored", *map(str, range(500))]
    assert [envelope["e"] for envelope in stored][-2:] == ["task_paused", "task_completed"]
    assert len({envelope["i"] for envelope in stored}) == len(stored)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


async def test_no_event_is_lost_when_the_local_servers_nats_is_killed_and_restarted() -> None:
    async with running_serve(workers=1) as serve:
        with pytest.MonkeyPatch.context() as patch:  # until all is stored: the server is looked for at each connection
            patch.delenv("NATS_URL", raising=False)
            patch.setenv("FANLINE_STATE_DIR", str(serve.state_directory))
            async with fanline.Task("job", linger=SECONDS) as task:
                async with served_tasks(serve) as nats:
                    await nats.wait_for("job", "task_started")
                killed = serve.nats_pid()
                os.kill(killed, signal.SIGKILL)
                for number in range(300):
                    await task.log(str(number))
                    await trio.sleep(0.001)
            await wait_until(lambda: "nats-server" in _commands(serve) and serve.nats_pid() != killed, SECONDS)
            async with _eventually_served(serve) as nats:
                await nats.wait_for("job", "task_completed")
                stored = await nats.stored("job")
        assert lines_of(stored) == list(map(str, range(300)))
        assert len({envelope["i"] for envelope in stored}) == len(stored)


def _commands(serve: Serve) -> str:
    return " ".join(command for _, command in children_of(serve.pid))


@asynccontextmanager
async def _eventually_served(serve: Serve) -> AsyncIterator[StoredTasks]:
    with trio.fail_after(SECONDS):
        while True:
            try:
                async with connect_nats(serve.engine_url) as client:
                    await client.api("STREAM.INFO")
                    yield StoredTasks(serve.producer_url, "", client)
                    return
            except OSError:
                await trio.sleep(0.05)


async def test_unstored_events_wait_for_jetstream_without_delaying_the_job(caplog: pytest.LogCaptureFixture) -> None:
    async with running_nats() as server, connect_nats(server.url) as client:
        async with fanline.Task("job", nats=server.url, linger=SECONDS) as task:
            await wait_until(lambda: bool(caplog.records))
            task.log("early")
        assert "it has no stream FANLINE_task" in caplog.text  # and the block has ended
        await client.api("STREAM.CREATE", STREAM)
        await StoredTasks(server.url, "", client).wait_for("job", "task_completed")


@STYLES
async def test_without_a_server_the_job_is_unharmed_and_the_loss_is_reported_once(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    task = fanline.Task("job", nats="nats://127.0.0.1:1", linger=0.1)
    await in_thread(lambda: job(task))
    await wait_until(lambda: len(caplog.records) >= 2)
    waiting, lost = [record.getMessage() for record in caplog.records]
    assert waiting.startswith("task events are waiting for NATS: cannot connect to nats://127.0.0.1:1")
    assert (
        "task job: 6 events and 3 more lines of output were not stored within 0.1 seconds of its end and may be lost"
        in lost
    )
    await wait_until(lambda: not _exporter_runs())


def _exporter_runs() -> bool:
    return any(thread.name == "fanline exporter" for thread in threading.enumerate())


async def test_more_output_than_can_be_sent_is_bounded_and_counted() -> None:
    calls = 300_000

    def flood(url: str) -> fanline.SyncTask:
        with fanline.Task("job", nats=url, linger=SECONDS) as task:
            for number in range(calls):
                task.log(f"line {number}")
                task.progress(done=number, total=calls)
        return task

    async with running_stream() as (_, nats):
        task = await in_thread(lambda: flood(nats.url))
        stored = await nats.stored("job")
    reported = sum(envelope["d"].get("dropped", 0) for envelope in stored)
    assert reported == task.dropped
    assert len(lines_of(stored)) + reported == calls
    assert lines_of(stored)[-1] == f"line {calls - 1}"
    assert stored[-1]["e"] == "task_completed"


async def test_binary_and_huge_lines_arrive_as_text_that_fits() -> None:
    def job(url: str) -> None:
        with fanline.Task("job", nats=url) as task:
            task.log(bytes(range(256)))
            task.log("x" * 10_000_000)

    async with running_stream() as (_, nats):
        await in_thread(lambda: job(nats.url))
        lines = lines_of(await nats.stored("job"))
    assert lines[2].endswith("abcdefghijklmnopqrstuvwxyz{|}~" + "\ufffd" * 129)
    assert lines[-1].endswith(" more characters]")
    assert len(lines[-1]) < 9000


async def test_log_records_become_output_of_the_current_task() -> None:
    logger = logging.Logger("app")
    logger.addHandler(fanline.LogHandler(level=logging.INFO))
    ours = logging.Logger("fanline.tasks")
    ours.addHandler(fanline.LogHandler())
    logger.warning("outside of any task")
    async with running_stream() as (_, nats):
        async with fanline.Task("job", nats=nats.url) as task:
            assert fanline.current_task() is task
            logger.debug("too low")
            ours.warning("about ourselves")
            logger.warning("disk %s", "full")
        assert fanline.current_task() is None
        stored = await nats.stored("job")
    assert events_of(stored)[1:-1] == [
        ("task_output", {"attempt": 1, "lines": ["disk full"], "stream": "stderr"}),
    ]
