"""`fanline progress`, `log`, `ask` and `result` in scripts under `fanline run`, and the socket that they use."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.servers.serve import serve_environ
from tests.support.tasks.running_command import Running, Stage, completed, open_stage, run_to_end, running

FANLINE = f"{sys.executable} -P -m fanline"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage() as opened:
        yield opened


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Whose path leaves room for that of a socket in it."""
    with tempfile.TemporaryDirectory(prefix="ft-") as name:
        yield Path(name)


def _newest(job: Running, event: str) -> dict[str, Any]:
    return [data for name, data in job.reported if name == event][-1]


async def test_a_script_reports_progress_lines_and_a_result(stage: Stage) -> None:
    script = f"""set -e
    {FANLINE} progress 40 compiling --stage build
    {FANLINE} progress 3/10
    {FANLINE} log two  words
    printf 'a\\nb' | {FANLINE} log --stderr
    {FANLINE} result '{{"tests": 12}}'
    echo "coverage is at 99%"
    echo 99%
    """
    with trio.fail_after(100):
        job, stdout, stderr = await run_to_end(stage, "--", "sh", "-c", script)
    assert (job.process.returncode, stdout) == (0, b"coverage is at 99%\n99%\n"), stderr
    said = [data for event, data in job.reported if event == TaskEvent.PROGRESS]
    assert [(data["percent"], data["stage"], data["message"]) for data in said[:1]] == [(40, "build", "compiling")]
    assert (said[-1]["done"], said[-1]["total"]) == (3, 10), "progress was read from the output, too"
    assert (job.lines()[0], job.lines("stderr")) == ("two words", ["a", "b"])
    assert _newest(job, TaskEvent.COMPLETED)["result"] == {"tests": 12}


@pytest.mark.parametrize(
    ("options", "answer", "printed", "code"),
    [
        ("", "approve", "yes", 0),
        ("", "reject", "no", 1),
        ("--option blue --option green", "green", "green", 0),
        ("--input", "schön", "schön", 0),
    ],
)
async def test_ask_waits_for_a_viewer_prints_the_answer_and_exits_with_a_code(
    stage: Stage, options: str, answer: str, printed: str, code: int
) -> None:
    script = f'said=$({FANLINE} ask "Deploy?" {options}); echo "code $? said $said"'
    with trio.fail_after(100):
        async with running(stage, "--", "sh", "-c", script) as job:
            await job.until(TaskEvent.ASKED)
            async with fanline.Client(stage.serve.url) as client, client.task(job.task, by="ann") as task:
                if answer == "reject":
                    await task.reject()
                elif answer == "approve":
                    await task.approve()
                else:
                    await task.send_input(answer)
            await job.until(TaskEvent.OUTPUT, f"code {code} said {printed}")


async def test_ask_ends_at_its_deadline_with_a_code_of_its_own(stage: Stage) -> None:
    with trio.fail_after(100):
        _, stdout, stderr = await run_to_end(
            stage, "--", "sh", "-c", f"{FANLINE} ask --deadline 1 'Deploy?'; echo code $?"
        )
    assert stdout == b"code 4\n"
    assert b"no viewer answered 'Deploy?' in time" in stderr


async def test_a_question_whose_asker_is_interrupted_is_withdrawn(stage: Stage) -> None:
    asks = f"""
import signal, subprocess, sys
asking = subprocess.Popen({[*FANLINE.split(), "ask"]} + ["first"])
sys.stdin.readline()
asking.send_signal(signal.SIGINT)
print("interrupted", asking.wait() in (130, -signal.SIGINT), flush=True)
subprocess.run({[*FANLINE.split(), "ask"]} + ["next"])
"""
    with trio.fail_after(100):
        async with running(stage, "--input", "--", sys.executable, "-c", asks, stdin=subprocess.PIPE) as job:
            assert (await job.until(TaskEvent.ASKED))["text"] == "first"
            await job.call("input", value="go")
            await job.until(TaskEvent.OUTPUT, "interrupted True")
            assert (await job.until(TaskEvent.ASKED))["text"] == "next"


async def test_questions_asked_at_once_wait_for_their_turn(stage: Stage) -> None:
    script = f"{FANLINE} ask same & {FANLINE} ask same & wait"
    with trio.fail_after(100):
        async with running(stage, "--", "sh", "-c", script) as job:
            for _ in range(2):
                ask = (await job.until(TaskEvent.ASKED))["ask"]
                assert (await job.call("approve", ask=ask))["t"] == "ok"
            await job.until(TaskEvent.COMPLETED)
    assert job.lines() == ["yes", "yes"]


async def test_the_socket_is_of_this_user_and_of_this_task_alone_and_goes_with_it(stage: Stage, tmp_path: Path) -> None:
    script = f'env > {tmp_path}/env; stat -c "%a %n" "$FANLINE_SOCKET" "$(dirname "$FANLINE_SOCKET")"'
    with trio.fail_after(100):
        job, stdout, _ = await run_to_end(stage, "--", "sh", "-c", script)
    environ = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    path = environ["FANLINE_SOCKET"]
    assert environ["FANLINE_TASK"] == job.task
    assert stdout.decode().split() == ["600", path, "700", str(Path(path).parent)]
    assert not Path(path).parent.exists()
    assert not any("NATS" in name and name not in os.environ for name in environ)


async def test_a_run_within_a_run_has_a_socket_of_its_own(stage: Stage) -> None:
    inner = "echo $FANLINE_TASK; echo $FANLINE_SOCKET"
    outer = f"{inner}; {FANLINE} run --task inner-{os.getpid()} -- sh -c '{inner}'"
    with trio.fail_after(100):
        job, stdout, _ = await run_to_end(stage, "--", "sh", "-c", outer)
    task, socket, inner_task, inner_socket = stdout.decode().split()
    assert (task, inner_task) == (job.task, f"inner-{os.getpid()}")
    assert inner_socket != socket


@pytest.mark.parametrize("verb", [("progress", "40"), ("log", "x"), ("ask", "x?"), ("result", "1")])
async def test_without_a_run_each_verb_says_in_one_line_how_to_get_one(tmp_path: Path, verb: tuple[str, ...]) -> None:
    gone = {"FANLINE_SOCKET": str(tmp_path / "gone.sock")}
    with trio.fail_after(60):
        for environ, why in (({}, b"FANLINE_SOCKET is not set"), (gone, b"its `fanline run` has ended")):
            ended = await trio.run_process(
                [*FANLINE.split(), *verb],
                env=serve_environ(tmp_path) | environ,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            assert ended.returncode == 3
            assert ended.stdout == b""
            (line,) = ended.stderr.splitlines()
            assert line.startswith(b"fanline: error: no task to report to")
            assert why in line


async def test_what_no_task_has_is_refused_with_code_2(stage: Stage) -> None:
    script = f"{FANLINE} progress 140; echo $?; {FANLINE} progress many; echo $?; {FANLINE} progress; echo $?"
    with trio.fail_after(100):
        _, stdout, stderr = await run_to_end(stage, "--", "sh", "-c", script)
    assert stdout.split() == [b"2", b"2", b"2"]
    assert len([line for line in stderr.splitlines() if line.startswith(b"fanline: error: ")]) == 3


async def test_a_line_or_result_of_any_bytes_is_shown_as_nearly_as_it_can_be(stage: Stage) -> None:
    deep = '$(head -c 100000 /dev/zero | tr "\\0" "[")'
    script = f"""
    {FANLINE} log "$(printf 'caf\\351.txt')"
    {FANLINE} result "{deep}"; echo "code $?"
    {FANLINE} result NaN; echo "code $?"
    """
    with trio.fail_after(100):
        job, stdout, stderr = await run_to_end(stage, "--", "bash", "-c", script)
    assert (stdout, job.lines()[0]) == (b"code 0\ncode 0\n", "caf?.txt"), stderr
    assert _newest(job, TaskEvent.COMPLETED)["result"] == "NaN"


async def test_a_result_that_is_too_large_is_refused_with_the_reason(stage: Stage) -> None:
    script = f'head -c 4000000 /dev/zero | tr "\\0" a | {FANLINE} result -; echo "code $?"'
    with trio.fail_after(100):
        _, stdout, stderr = await run_to_end(stage, "--", "sh", "-c", script)
    assert (stdout, b"a line has more than 1048576 bytes" in stderr) == (b"code 2\n", True), stderr


async def test_a_large_result_in_any_script_passes_the_socket(stage: Stage) -> None:
    program = """
import fanline
task = fanline.current_task()
task.result("\u00e9" * 200_000)  # as escapes it would be three times as long
task.log("after")
"""
    with trio.fail_after(100):
        job, _, stderr = await run_to_end(stage, "--", sys.executable, "-P", "-c", program)
    assert job.lines() == ["after"], stderr
    assert _newest(job, TaskEvent.COMPLETED)["result"] == "\u00e9" * 200_000


async def test_the_verbs_work_without_a_server(tmp_path: Path) -> None:
    with trio.fail_after(60):
        ended = await completed("--", "sh", "-c", f"{FANLINE} progress 40 && {FANLINE} log x", directory=tmp_path)
    assert ended.returncode == 0


@pytest.mark.parametrize("with_input", [False, True])
async def test_an_answer_to_a_question_that_the_command_asked_by_an_event_of_its_own_arrives(
    stage: Stage, with_input: bool
) -> None:
    """By NATS, if the command listens there; on its stdin if viewers may type to it."""
    asks = json.dumps({"ask": "q1", "text": "Deploy?"})
    listens = f"""
import asyncio, json, nats, os, sys
async def main():
    connection = await nats.connect(os.environ["ENGINE_URL"])
    calls = await connection.subscribe("fanline.ctl.task." + os.environ["FANLINE_TASK"])
    await connection.flush()
    await connection.publish("fanline.pub.task." + os.environ["FANLINE_TASK"],
        json.dumps({{"v": 1, "e": "task_confirmation_required", "d": {asks}}}).encode())
    async for call in calls.messages:
        body = json.loads(call.data)
        if body["t"] == "ping":
            continue  # `fanline run` is attached, too
        print("answered", body["d"]["ask"], body["u"])
        await call.respond(b'{{"v": 1, "t": "ok"}}')
        return
asyncio.run(main())
"""
    reads = f"{FANLINE} pub task:$FANLINE_TASK '{asks}' --event task_confirmation_required; read a; echo answered $a"
    command = ("--input", "--", "sh", "-c", reads) if with_input else ("--", sys.executable, "-c", listens)
    with trio.fail_after(100):
        environ = {"ENGINE_URL": stage.serve.engine_url}
        async with running(stage, *command, env=environ, stdin=subprocess.PIPE) as job:
            await job.until(TaskEvent.ASKED)
            async with fanline.Client(stage.serve.url) as client, client.task(job.task, by="ann") as task:
                await task.approve()
            await job.until(TaskEvent.OUTPUT, "answered yes" if with_input else "answered q1 ann")
            await job.until(TaskEvent.COMPLETED)


async def test_the_child_of_a_killed_run_is_told_that_its_task_is_gone_and_the_next_run_removes_the_directory(
    stage: Stage, tmp_path: Path, short_directory: Path
) -> None:
    script = f"""
    echo ready "$FANLINE_SOCKET"
    while ! test -e {tmp_path}/killed; do sleep 0.1; done
    {FANLINE} progress 40 > {tmp_path}/said 2>&1; echo "code $?" >> {tmp_path}/said
    mv {tmp_path}/said {tmp_path}/told
    """
    private = {"TMPDIR": str(short_directory)}
    with trio.fail_after(100):
        async with running(stage, "--", "sh", "-c", script, env=private) as job:
            assert job.process.stdout is not None
            first = (await job.process.stdout.receive_some()).decode()
            directory = Path(first.split()[1]).parent
            job.process.kill()
            await job.process.wait()
            assert directory.exists(), "a killed process cannot remove it"
            (tmp_path / "killed").touch()
            while not (tmp_path / "told").exists():
                await trio.sleep(0.05)
        os.utime(directory, (0, 0))
        async with running(stage, "--", "true", env=private) as job:
            await job.process.wait()
    said, code = (tmp_path / "told").read_text().splitlines()
    assert code == "code 3"
    assert said == f"fanline: error: no task to report to at {directory}/task.sock: its `fanline run` has ended"
    assert not directory.exists()
