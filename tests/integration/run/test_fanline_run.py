"""`fanline run`: real commands, a real server, and what viewers see of them."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import trio

from fanline.protocol.tasks.events import MAX_LINE, TaskEvent
from tests.support.servers.serve import serve_environ
from tests.support.tasks.running_command import (
    RUN,
    Running,
    Stage,
    close,
    completed,
    open_stage,
    read_all,
    run_to_end,
    running,
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage() as opened:
        yield opened


async def test_output_progress_and_exit_code_of_a_command_are_passed_on_and_reported(stage: Stage) -> None:
    script = "echo [1/4] one; echo oops >&2; echo '[3/4] three'; printf last; exit 3"
    with trio.fail_after(90):
        job, stdout, stderr = await run_to_end(stage, "--title", "My job", "--", "sh", "-c", script)
    assert (stdout, job.process.returncode) == (b"[1/4] one\n[3/4] three\nlast", 3)
    assert stderr.decode() == (
        f"fanline: running as task:{job.task}; viewers can stop it, and cannot type to it; "
        f"watch it with: fanline tail task:{job.task}\noops\n"
    )
    assert (job.lines(), job.lines("stderr")) == (["[1/4] one", "[3/4] three", "last"], ["oops"])
    assert (job.reported[0][0], job.reported[0][1]["title"]) == (TaskEvent.STARTED, "My job")
    newest = [data for event, data in job.reported if event == TaskEvent.PROGRESS][-1]
    assert (newest["done"], newest["total"]) == (3, 4)
    event, ending = job.reported[-1]
    assert (event, ending["result"]) == (TaskEvent.FAILED, {"exit_code": 3})
    assert ending["error"].endswith("exit code 3")


async def test_binary_output_is_passed_on_byte_for_byte_and_does_no_harm(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(Random(5).randbytes(100_000))
    with trio.fail_after(90):
        job, stdout, _ = await run_to_end(stage, "--", "cat", str(tmp_path / "data"))
    assert stdout == (tmp_path / "data").read_bytes()
    assert (job.process.returncode, job.reported[-1][0]) == (0, TaskEvent.COMPLETED)
    assert len(job.lines()) > 100


async def test_a_line_of_10_megabytes_is_cut(stage: Stage) -> None:
    with trio.fail_after(90):
        job, stdout, _ = await run_to_end(stage, "--", "sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x")
    assert stdout == b"x" * 10_000_000
    assert job.reported[-1][0] == TaskEvent.COMPLETED
    lines = job.lines()
    assert max(map(len, lines)) == MAX_LINE
    assert len(lines) + _dropped(job) == -(-10_000_000 // MAX_LINE)


async def test_in_a_flood_of_output_what_viewers_do_not_get_is_counted(stage: Stage) -> None:
    with trio.fail_after(90):
        job, stdout, _ = await run_to_end(stage, "--", "sh", "-c", "yes | head -n 200000")
    assert stdout == b"y\n" * 200_000
    assert job.reported[-1][0] == TaskEvent.COMPLETED
    assert len(job.lines()) + _dropped(job) == 200_000


def _dropped(job: Running) -> int:
    return sum(data.get("dropped", 0) for _, data in job.reported)


async def test_a_viewers_cancel_is_a_sigterm(stage: Stage) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with trio.fail_after(90):
        async with running(stage, "--", "sh", "-c", script) as job:
            await job.until(TaskEvent.OUTPUT, "ready")
            assert (await job.call("cancel", deadline=30))["t"] == "ok"
            ended = await job.until(TaskEvent.CANCELLED)
            assert await job.process.wait() == 7
    assert (ended["by"], job.lines()) == ("ann", ["ready", "bye"])


@pytest.mark.parametrize(
    ("ignores", "ended_by"), [("trap '' TERM;", signal.SIGKILL), ("", signal.SIGTERM)], ids=["all", "child"]
)
async def test_a_command_or_child_that_ignores_sigterm_is_killed(
    stage: Stage, ignores: str, ended_by: signal.Signals
) -> None:
    script = ignores + "sh -c \"trap '' TERM; \"'echo $$; while :; do sleep 0.1; done'; true"
    with trio.fail_after(90):
        async with running(stage, "--grace", "1", "--", "sh", "-c", script) as job:
            (pid,) = (await job.until(TaskEvent.OUTPUT))["lines"]
            await job.call("cancel")
            await job.until(TaskEvent.CANCELLED)
            assert await job.process.wait() == 128 + ended_by
            assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


async def test_viewers_input_and_our_stdin_both_reach_the_command(stage: Stage) -> None:
    script = 'printf "Name? "; read a; echo "a $a"; read b; echo "b $b"; read c || echo closed; sleep 60'
    with trio.fail_after(90):
        async with running(stage, "--input", "--", "sh", "-c", script, stdin=subprocess.PIPE) as job:
            assert job.process.stdin is not None
            await job.until(TaskEvent.OUTPUT, "Name? ")  # a prompt without a line end is seen
            assert (await job.call("input", value="schön"))["t"] == "ok"
            await job.until(TaskEvent.OUTPUT, "a schön")
            await job.process.stdin.send_all(b"from here\n")
            await job.until(TaskEvent.OUTPUT, "b from here")
            await job.process.stdin.aclose()
            await job.until(TaskEvent.OUTPUT, "closed")
            refusal = await job.call("input", value="too late")
            assert (refusal["t"], refusal["d"]["message"]) == ("err", "the command's stdin is closed")
            refusal = await job.call("approve", value=True)
            assert refusal["d"]["message"] == "a command supports cancel, input, pause and resume, not approve"


async def test_the_name_of_whoever_stops_it_is_only_displayed(stage: Stage) -> None:
    with trio.fail_after(90):
        async with running(stage, "--", "sh", "-c", "echo ready; exec sleep 60") as job:
            await job.until(TaskEvent.OUTPUT, "ready")
            await job.call("cancel", by="\x1b]52;c;eA==\x07ann\x9b2J\u202e\n")
            ended = await job.until(TaskEvent.CANCELLED)
            stderr = await read_all(job.process.stderr)
    assert ended["by"] == "ann\\x9b2J\\u202e\\n"  # a name that the server accepts
    assert stderr.splitlines()[1] == (b"fanline: stopped by ann\\x9b2J\\u202e\\n: SIGTERM now, SIGKILL after 10 s")


async def test_without_input_a_viewer_cannot_type_and_nothing_reaches_the_stdin(stage: Stage) -> None:
    with trio.fail_after(90):
        async with running(
            stage, "--", "sh", "-c", 'echo ready; read line; echo "got $line"', stdin=subprocess.PIPE
        ) as job:
            assert job.process.stdin is not None
            await job.until(TaskEvent.OUTPUT, "ready")
            refusal = await job.call("input", value="rm -rf /")
            assert (refusal["t"], refusal["d"]["code"]) == ("err", "refused")
            assert "fanline run --input" in refusal["d"]["message"]
            await job.process.stdin.send_all(b"from here\n")
            await job.until(TaskEvent.OUTPUT, "got from here")


async def test_with_no_cancel_a_viewer_cannot_stop_pause_or_resume_it(stage: Stage) -> None:
    with trio.fail_after(90):
        async with running(
            stage, "--no-cancel", "--", "sh", "-c", "echo ready; read line", stdin=subprocess.PIPE
        ) as job:
            assert job.process.stdin is not None
            await job.until(TaskEvent.OUTPUT, "ready")
            for verb in ("cancel", "pause", "resume"):
                refusal = await job.call(verb)
                assert (refusal["t"], refusal["d"]["code"]) == ("err", "refused")
                assert "--no-cancel" in refusal["d"]["message"]
            await job.process.stdin.send_all(b"go\n")
            await job.until(TaskEvent.COMPLETED)
            assert await job.process.wait() == 0


@pytest.mark.parametrize(
    ("flags", "title", "summary"),
    [
        ((), "sh", "viewers can stop it, and cannot type to it"),
        (("--input",), "sh (viewers can type)", "viewers can stop it, and can type to it"),
        (("--no-cancel", "--title", "Deploy"), "Deploy (viewers cannot stop it)", "cannot stop it, and cannot type"),
        (("--no-cancel", "--input"), "sh (viewers can type and cannot stop it)", "cannot stop it, and can type"),
        (("--input", "--title", "x" * 300), "x" * 234 + "... (viewers can type)", "can type to it"),
    ],
)
async def test_title_and_terminal_say_what_viewers_can_do(
    stage: Stage, flags: tuple[str, ...], title: str, summary: str
) -> None:
    with trio.fail_after(90):
        job, _, stderr = await run_to_end(stage, *flags, "--", "/bin/sh", "-c", "true")
    assert job.reported[0][1]["title"] == title
    assert summary in stderr.decode().splitlines()[0]


@pytest.mark.parametrize("program", ["/bin/sh", "/no-such-folder/s3cret/sh"])
async def test_viewers_learn_nothing_of_the_command_line_but_the_programs_name(stage: Stage, program: str) -> None:
    with trio.fail_after(90):
        job, _, _ = await run_to_end(stage, "--", program, "-c", "true", "--password=s3cret")
    assert job.reported[0][1]["title"] == "sh"
    assert "s3cret" not in repr(job.reported)


async def test_pause_and_resume_stop_the_process_itself_and_a_paused_one_can_be_cancelled(stage: Stage) -> None:
    with trio.fail_after(90):
        async with running(stage, "--", "sh", "-c", "echo $$; exec sleep 60") as job:
            (pid,) = (await job.until(TaskEvent.OUTPUT))["lines"]
            for verb, event, state in (
                ("pause", TaskEvent.PAUSED, "T"),
                ("resume", TaskEvent.RESUMED, "S"),
                ("pause", TaskEvent.PAUSED, "T"),
            ):
                await job.call(verb)
                await job.until(event)
                while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
                    await trio.sleep(0.01)
            await job.call("cancel")
            await job.until(TaskEvent.CANCELLED)
            assert await job.process.wait() == 128 + signal.SIGTERM


async def test_ctrl_c_reaches_the_command_which_decides_how_to_end(stage: Stage) -> None:
    script = "trap 'echo cleaning; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    with trio.fail_after(90):
        async with running(stage, "--", "sh", "-c", script) as job:
            await job.until(TaskEvent.OUTPUT, "ready")
            job.process.send_signal(signal.SIGINT)
            await job.until(TaskEvent.CANCELLED)
            assert await job.process.wait() == 5
    assert job.lines() == ["ready", "cleaning"]


async def test_a_command_that_a_signal_kills_has_failed(stage: Stage) -> None:
    with trio.fail_after(90):
        job, _, _ = await run_to_end(stage, "--", "sh", "-c", "kill -9 $$")
    event, ending = job.reported[-1]
    assert (event, ending["result"]) == (TaskEvent.FAILED, {"exit_code": 137})
    assert ending["error"].endswith("killed by SIGKILL")
    assert job.process.returncode == 137


async def test_a_command_that_does_not_exist_is_one_line_and_exit_code_127(stage: Stage) -> None:
    with trio.fail_after(90):
        job, stdout, stderr = await run_to_end(stage, "--", "no-such-command")
    assert (stdout, job.process.returncode, job.reported[-1][0]) == (b"", 127, TaskEvent.FAILED)
    assert stderr.splitlines()[1:] == [b"fanline: error: cannot run no-such-command: No such file or directory"]


async def test_a_reader_of_our_output_that_goes_away_does_not_end_the_command(stage: Stage, tmp_path: Path) -> None:
    script = f"yes | head -n 100000; echo done > {tmp_path}/done"
    read_end, write_end = os.pipe()
    with trio.fail_after(90):
        try:
            async with running(stage, "--", "sh", "-c", script, stdout=write_end) as job:
                assert os.read(read_end, 2) == b"y\n"
                os.close(read_end)
                await job.until(TaskEvent.COMPLETED)
                assert await job.process.wait() == 0
        finally:
            os.close(write_end)
    assert (tmp_path / "done").exists()


async def test_output_that_cannot_be_written_is_said_and_the_command_goes_on(tmp_path: Path) -> None:
    command = [*RUN, "--", "sh", "-c", f"echo lost; echo done > {tmp_path}/done"]
    with trio.fail_after(90):
        ended = await trio.run_process(
            ["sh", "-c", 'exec "$@" > /dev/full', "sh", *command], env=serve_environ(tmp_path), capture_stderr=True
        )
    assert b"fanline: warning: the command's output cannot be passed on any more: No space left" in ended.stderr
    assert (tmp_path / "done").exists()


async def test_with_a_closed_stderr_our_own_lines_do_not_go_to_stdout(tmp_path: Path) -> None:
    with trio.fail_after(90):
        ended = await trio.run_process(
            ["sh", "-c", 'exec "$@" 2>&-', "sh", *RUN, "--", "echo", "data"],
            env=serve_environ(tmp_path),
            capture_stdout=True,
        )
    assert ended.stdout == b"data\n"


async def test_a_command_under_nohup_outlives_a_hangup(tmp_path: Path) -> None:
    script = "echo $$; sleep 0.3; echo still here"
    with trio.fail_after(90):
        env = serve_environ(tmp_path)
        process = await trio.lowlevel.open_process(
            ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *RUN, "--", "sh", "-c", script],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        pid = await process.stdout.receive_some()
        for number in (process.pid, int(pid)):
            os.kill(number, signal.SIGHUP)
        assert (await read_all(process.stdout), await process.wait()) == (b"still here\n", 0)
        await close(process)


async def test_a_child_that_is_left_behind_with_the_output_is_not_waited_for(tmp_path: Path) -> None:
    with trio.fail_after(20):
        ended = await completed("--", "sh", "-c", "sleep 100 & echo $!", directory=tmp_path)
    os.kill(int(ended.stdout), signal.SIGKILL)
    assert ended.returncode == 0


async def test_without_a_server_the_command_runs_with_one_warning(tmp_path: Path) -> None:
    with trio.fail_after(90):
        ended = await completed("--", "sh", "-c", "cat; exit 4", directory=tmp_path, stdin=b"from\0here")
    assert (ended.returncode, ended.stdout) == (4, b"from\0here")
    (warning,) = ended.stderr.splitlines()
    assert warning.startswith(b"fanline: warning: no running `fanline serve` found")


async def test_an_invalid_task_id_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with trio.fail_after(90):
        ended = await completed("--task", "a b", "--", "touch", str(tmp_path / "ran"), directory=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"fanline: error: ")
    assert not (tmp_path / "ran").exists()
