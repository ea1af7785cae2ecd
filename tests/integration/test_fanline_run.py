"""`fanline run`: real commands, a real server, and what viewers see of them."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
import trio

import fanline
from fanline.protocol.tasks.events import MAX_LINE, TaskEvent
from tests.support.nats.client import connect_nats
from tests.support.serve import Serve, serve_environ, shared_serve

RUN = [sys.executable, "-P", "-m", "fanline", "run"]
ENDS = (TaskEvent.COMPLETED, TaskEvent.FAILED, TaskEvent.CANCELLED)
Reported = list[tuple[str | None, dict[str, Any]]]


class Stage(NamedTuple):
    """A server, on which each command is a task of its own."""

    serve: Serve
    numbers: Iterator[int]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with shared_serve() as serve:
        yield Stage(serve, itertools.count())


class Running:
    """`fanline run --task ID ARGS`, and what it has reported so far."""

    def __init__(
        self, process: trio.Process, serve: Serve, task: str, messages: fanline.Subscription[fanline.Message]
    ) -> None:
        self.process = process
        self.task = task
        self._serve = serve
        self._messages = messages
        self.reported: Reported = []

    async def until(self, event: str, line: str | None = None) -> dict[str, Any]:
        """The data of the next event of that kind, with that output line if one is given."""
        async for message in self._messages:
            self.reported.append((message.event, message.data))
            if message.event == event and (line is None or line in message.data["lines"]):
                data: dict[str, Any] = message.data
                return data
        raise AssertionError(self.reported)

    async def call(self, verb: str, **data: Any) -> dict[str, Any]:
        """Call the producer as the engine does; returns its answer."""
        call = {
            "v": 1,
            "t": "call",
            "c": f"task:{self.task}",
            "i": "1",
            "e": verb,
            "d": {"by": "ann", **data},
            "u": "ann",
        }
        async with connect_nats(self._serve.engine_url) as nats:
            return await nats.ask(f"fanline.ctl.task.{self.task}", msgspec.json.encode(call))

    def lines(self, stream: str = "stdout") -> list[str]:
        outputs = [data for event, data in self.reported if event == TaskEvent.OUTPUT and data["stream"] == stream]
        return [line for data in outputs for line in data["lines"]]


@asynccontextmanager
async def running(
    stage: Stage, *args: str, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> AsyncIterator[Running]:
    """A command under `fanline run`, and a viewer who sees it from the first event on."""
    serve, task = stage.serve, f"job-{next(stage.numbers)}"
    async with fanline.Client(serve.url) as client:
        async with client.subscribe(f"task:{task}", start=True) as messages:
            process = await _open(task, *args, env=serve_environ(serve.directory), stdin=stdin, stdout=stdout)
            try:
                yield Running(process, serve, task, messages)
            finally:
                await _close(process)


async def _open(task: str, *args: str, env: Mapping[str, str], stdin: int, stdout: int | None) -> trio.Process:
    command = [*RUN, "--task", f"task:{task}", *args]
    return await trio.lowlevel.open_process(
        command, env=env, stdin=stdin, stdout=subprocess.PIPE if stdout is None else stdout, stderr=subprocess.PIPE
    )


async def _close(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()  # which reaches the command, too
            with trio.move_on_after(5):
                await process.wait()
            process.kill()
            await process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


async def _completed(*args: str, directory: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """`fanline run ARGS` without a server."""
    env = serve_environ(directory)
    env.pop("NATS_URL", None)
    return await trio.run_process(
        [*RUN, *args], env=env, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False
    )


async def _all(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([bytes(data) async for data in stream])


async def _run_to_end(stage: Stage, *args: str) -> tuple[Running, bytes, bytes]:
    """What it reported, its stdout and its stderr."""
    output: dict[str, bytes] = {}

    async def read(name: str, stream: trio.abc.ReceiveStream | None) -> None:
        output[name] = await _all(stream)

    async with running(stage, *args) as job:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "stdout", job.process.stdout)
            nursery.start_soon(read, "stderr", job.process.stderr)
            async for message in job._messages:
                job.reported.append((message.event, message.data))
                if message.event in ENDS:
                    break
        await job.process.wait()
    return job, output["stdout"], output["stderr"]


async def test_output_progress_and_exit_code_of_a_command_are_passed_on_and_reported(stage: Stage) -> None:
    script = "echo [1/4] one; echo oops >&2; echo '[3/4] three'; printf last; exit 3"
    with trio.fail_after(90):
        job, stdout, stderr = await _run_to_end(stage, "--title", "My job", "--", "sh", "-c", script)
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
        job, stdout, _ = await _run_to_end(stage, "--", "cat", str(tmp_path / "data"))
    assert stdout == (tmp_path / "data").read_bytes()
    assert (job.process.returncode, job.reported[-1][0]) == (0, TaskEvent.COMPLETED)
    assert len(job.lines()) > 100


async def test_a_line_of_10_megabytes_is_cut(stage: Stage) -> None:
    with trio.fail_after(90):
        job, stdout, _ = await _run_to_end(stage, "--", "sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x")
    assert stdout == b"x" * 10_000_000
    assert job.reported[-1][0] == TaskEvent.COMPLETED
    lines = job.lines()
    assert max(map(len, lines)) == MAX_LINE
    assert len(lines) + _dropped(job) == -(-10_000_000 // MAX_LINE)


async def test_in_a_flood_of_output_what_viewers_do_not_get_is_counted(stage: Stage) -> None:
    with trio.fail_after(90):
        job, stdout, _ = await _run_to_end(stage, "--", "sh", "-c", "yes | head -n 200000")
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
            stderr = await _all(job.process.stderr)
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
        job, _, stderr = await _run_to_end(stage, *flags, "--", "/bin/sh", "-c", "true")
    assert job.reported[0][1]["title"] == title
    assert summary in stderr.decode().splitlines()[0]


@pytest.mark.parametrize("program", ["/bin/sh", "/no-such-folder/s3cret/sh"])
async def test_viewers_learn_nothing_of_the_command_line_but_the_programs_name(stage: Stage, program: str) -> None:
    with trio.fail_after(90):
        job, _, _ = await _run_to_end(stage, "--", program, "-c", "true", "--password=s3cret")
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
        job, _, _ = await _run_to_end(stage, "--", "sh", "-c", "kill -9 $$")
    event, ending = job.reported[-1]
    assert (event, ending["result"]) == (TaskEvent.FAILED, {"exit_code": 137})
    assert ending["error"].endswith("killed by SIGKILL")
    assert job.process.returncode == 137


async def test_a_command_that_does_not_exist_is_one_line_and_exit_code_127(stage: Stage) -> None:
    with trio.fail_after(90):
        job, stdout, stderr = await _run_to_end(stage, "--", "no-such-command")
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
        assert (await _all(process.stdout), await process.wait()) == (b"still here\n", 0)
        await _close(process)


async def test_a_child_that_is_left_behind_with_the_output_is_not_waited_for(tmp_path: Path) -> None:
    with trio.fail_after(20):
        ended = await _completed("--", "sh", "-c", "sleep 100 & echo $!", directory=tmp_path)
    os.kill(int(ended.stdout), signal.SIGKILL)
    assert ended.returncode == 0


async def test_without_a_server_the_command_runs_with_one_warning(tmp_path: Path) -> None:
    with trio.fail_after(90):
        ended = await _completed("--", "sh", "-c", "cat; exit 4", directory=tmp_path, stdin=b"from\0here")
    assert (ended.returncode, ended.stdout) == (4, b"from\0here")
    (warning,) = ended.stderr.splitlines()
    assert warning.startswith(b"fanline: warning: no running `fanline serve` found")


async def test_an_invalid_task_id_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with trio.fail_after(90):
        ended = await _completed("--task", "a b", "--", "touch", str(tmp_path / "ran"), directory=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"fanline: error: ")
    assert not (tmp_path / "ran").exists()
