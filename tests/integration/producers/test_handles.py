"""A task that several processes and threads report to: process pools, forks, thread pools. On a real NATS."""

from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.tasks.stored import data_of, in_thread, lines_of, run_script, running_stream

POOL = """
import concurrent.futures, datetime, multiprocessing
import fanline

def work(task, number):
    task.log(f"item {number}")
    task.progress(done=number, total=20, message=datetime.date(2026, 1, 2))
    return number

if __name__ == "__main__":
    context = multiprocessing.get_context("%s")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool, fanline.Task("job") as task:
        for future in [pool.submit(work, task, number) for number in range(20)]:
            future.result()
"""
PROCESSES = """
import multiprocessing
import fanline

def work(task):
    task.log("from the child")
    task.result({"by": "the child"})

if __name__ == "__main__":
    context = multiprocessing.get_context("%s")
    with fanline.Task("job") as task:
        child = context.Process(target=work, args=(task.handle(),))
        child.start()
        child.join()
"""
FORKED = """
import os
import fanline

with fanline.Task("job") as task:
    if not os.fork():
        task.log("lost")
        task.progress(3)
        os._exit(0)
    os.wait()
"""
ORPHANED = """
import pickle
import fanline

with fanline.Task("job") as task:
    handle = pickle.loads(pickle.dumps(task))
handle.log("too late")
handle.log("too late")
"""
CANCELLED = """
import multiprocessing
import fanline

def work(task, seen):
    try:
        while True:
            task.progress(1)
    except fanline.TaskCancelled as error:
        seen.put(error.by)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    seen = context.Queue()
    try:
        with fanline.Task("job") as task:
            child = context.Process(target=work, args=(task.handle(), seen))
            child.start()
            task.log("begun")
            print(seen.get(), flush=True)
            child.join()
            task.log("never")
    except fanline.TaskCancelled:
        pass
"""
THREADS = """
import concurrent.futures, logging
import fanline

logging.basicConfig(level=logging.INFO, handlers=[fanline.LogHandler()])
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    with fanline.Task("job"):
        pool.submit(logging.info, "from the pool").result()
    pool.submit(logging.info, "after the task").result()
"""
SEVERAL = """
import concurrent.futures, logging
import fanline

logging.basicConfig(level=logging.INFO, handlers=[fanline.LogHandler(), logging.StreamHandler()])
with concurrent.futures.ThreadPoolExecutor(1) as pool, fanline.Task("job"), fanline.Task("other"):
    for _ in range(2):
        pool.submit(logging.info, "whose?").result()
"""


async def _run(script: str, path: Path) -> tuple[list[dict[str, Any]], str, str]:
    """What is stored of the task `job` of a program, which must end well; and what the program says."""
    program = path / "program.py"
    program.write_text(script)
    async with running_stream() as (_, nats):
        strict = {"PYTHONWARNINGS": "default::ResourceWarning"}
        ended = await in_thread(lambda: run_script(program, NATS_URL=nats.url, **strict))
        assert ended.returncode == 0, ended.stderr
        return await nats.stored("job"), ended.stdout, ended.stderr


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_what_the_processes_of_a_pool_report_is_part_of_the_task_before_its_end(
    method: str, tmp_path: Path
) -> None:
    stored, _, stderr = await _run(POOL % method, tmp_path)
    assert sorted(lines_of(stored)) == sorted(f"item {number}" for number in range(20))
    assert stored[0]["e"] == "task_started"
    assert stored[-1]["e"] == "task_completed"
    assert any(data_of(each).get("message") == "2026-01-02" for each in stored)
    assert stderr == ""


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_a_child_process_reports_with_a_handle(method: str, tmp_path: Path) -> None:
    stored, _, stderr = await _run(PROCESSES % method, tmp_path)
    assert lines_of(stored) == ["from the child"]
    assert data_of(stored[-1])["result"] == {"by": "the child"}
    assert stderr == ""


async def test_a_forked_copy_of_a_task_says_once_that_what_it_reports_is_left_out(tmp_path: Path) -> None:
    stored, _, stderr = await _run(FORKED, tmp_path)
    assert [each["e"] for each in stored] == ["task_started", "task_completed"]
    assert stderr.count("task job: a forked process has only a copy of it") == 1
    assert "`task.handle()`" in stderr


async def test_a_handle_whose_task_is_over_says_so_once(tmp_path: Path) -> None:
    stored, _, stderr = await _run(ORPHANED, tmp_path)
    assert lines_of(stored) == []
    assert stderr.count("task job: what this process reports is lost") == 1


async def test_a_viewers_cancel_reaches_the_process_that_has_a_handle(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(CANCELLED)
    async with running_stream() as (_, nats):
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await nats.wait_for("job", "task_progress")
                await nats.call("job", "cancel")

            nursery.start_soon(cancel)
            ended = await in_thread(lambda: run_script(program, NATS_URL=nats.url))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ann\n", "")
        assert (await nats.stored("job"))[-1]["e"] == "task_cancelled"


async def test_records_of_a_thread_pool_are_output_of_the_only_task(tmp_path: Path) -> None:
    stored, _, stderr = await _run(THREADS, tmp_path)
    assert lines_of(stored) == ["INFO:root:from the pool"]
    assert stderr == ""


async def test_records_that_may_be_of_several_tasks_are_a_warning_once(tmp_path: Path) -> None:
    stored, _, stderr = await _run(SEVERAL, tmp_path)
    assert lines_of(stored) == []
    assert stderr.count("belongs to none of 2 running tasks") == 1
