"""A Python program under `fanline run` reports on the task around it, without a word of configuration."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.tasks.running_command import Stage, open_stage, run_to_end, running

PYTHON = ("--", sys.executable, "-P", "-c")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage() as opened:
        yield opened


async def test_the_current_task_of_a_program_is_the_one_around_it(stage: Stage) -> None:
    program = """
import fanline, logging, os
task = fanline.current_task()
assert task.id == os.environ["FANLINE_TASK"]
logging.basicConfig(handlers=[fanline.LogHandler()], level="INFO")
task.progress(done=3, total=10, stage="compile")
task.log("a line")
logging.info("a record")
task.result({"tests": 12})
with fanline.Task("own", nats="127.0.0.1:1", linger=0) as own:
    assert fanline.current_task() is own
"""
    with trio.fail_after(100):
        job, _, stderr = await run_to_end(stage, *PYTHON, program)
    assert job.process.returncode == 0, stderr
    (progress,) = [data for event, data in job.reported if event == TaskEvent.PROGRESS]
    assert (progress["done"], progress["total"], progress["stage"]) == (3, 10, "compile")
    assert (job.lines(), job.lines("stderr")) == (["a line"], ["INFO:root:a record"])
    assert job.reported[-1][1]["result"] == {"tests": 12}


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_program_asks_the_viewers_of_the_task_around_it(stage: Stage, is_async: bool) -> None:
    asks = """
import fanline
answer = fanline.current_task().ask("Deploy?")
print(answer.approved, answer.by)
"""
    asks_async = """
import asyncio, fanline
async def main():
    answer = await fanline.current_task().ask("Deploy?")
    print(answer.approved, answer.by)
asyncio.run(main())
"""
    with trio.fail_after(100):
        async with running(stage, *PYTHON, asks_async if is_async else asks) as job:
            await job.until(TaskEvent.ASKED)
            async with fanline.Client(stage.serve.url) as client, client.task(job.task, by="ann") as task:
                await task.approve()
            await job.until(TaskEvent.OUTPUT, "True ann")


async def test_a_question_that_nobody_answers_expires(stage: Stage) -> None:
    program = """
import fanline
try:
    fanline.current_task().ask("Deploy?", deadline=0.5)
except fanline.AskExpired as error:
    print(error)
"""
    with trio.fail_after(100):
        job, stdout, _ = await run_to_end(stage, *PYTHON, program)
    assert stdout == b"no viewer answered 'Deploy?' in time\n", job.reported


async def test_forked_processes_report_too(stage: Stage) -> None:
    program = """
import fanline, multiprocessing
def work(number):
    fanline.current_task().log(f"line {number}")
fanline.current_task().log("begin")
context = multiprocessing.get_context("fork")
children = [context.Process(target=work, args=(number,)) for number in range(3)]
for child in children: child.start()
for child in children: child.join()
"""
    with trio.fail_after(100):
        job, _, _ = await run_to_end(stage, *PYTHON, program)
    assert sorted(job.lines()) == ["begin", "line 0", "line 1", "line 2"]


async def test_the_last_reports_of_a_program_are_not_lost(stage: Stage) -> None:
    program = """
import fanline
task = fanline.current_task()
for number in range(300):  # as many events as lines
    task.log(f"line {number}", stream=("stdout", "stderr")[number % 2])
task.result({"tests": 12})
"""
    with trio.fail_after(100):
        job, _, _ = await run_to_end(stage, *PYTHON, program)
    assert len(job.lines() + job.lines("stderr")) == 300
    assert job.reported[-1][1]["result"] == {"tests": 12}


async def test_lines_that_came_too_fast_are_counted_for_viewers(stage: Stage) -> None:
    program = """
import fanline
fanline.current_task().log("line\\n" * 10_500)  # 10,000 are kept
"""
    with trio.fail_after(100):
        job, _, _ = await run_to_end(stage, *PYTHON, program)
    assert any("500 lines before this one are left out" in line for line in job.lines()), job.lines()[:3]


def test_a_program_outside_of_a_run_has_no_current_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FANLINE_SOCKET", raising=False)
    assert fanline.current_task() is None


def test_a_program_whose_run_has_ended_goes_on_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FANLINE_SOCKET", str(tmp_path / "gone.sock"))
    monkeypatch.setenv("FANLINE_TASK", "gone")
    assert fanline.current_task() is None
    assert fanline.current_task() is None
    (record,) = caplog.records
    assert "its `fanline run` has ended" in record.getMessage()
