"""`fanline run --tty`: the command has a terminal of its own, between it and ours."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import fanline
from fanline.protocol.tasks.events import TaskEvent
from tests.support.servers.serve import serve_environ
from tests.support.tasks.running_command import RUN, Stage, open_stage, run_to_end, running

ON_OUR_TERMINAL = """
import fcntl, os, runpy, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("fanline", run_name="__main__")
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage() as opened:
        yield opened


class Person:
    """Who sits at a terminal at which `fanline run` runs."""

    def __init__(self, process: trio.Process, screen: int, before: list[Any]) -> None:
        self.process, self.screen, self.seen, self.before = process, screen, b"", before

    async def sees(self, text: bytes) -> None:
        while text not in self.seen:
            await trio.lowlevel.wait_readable(self.screen)
            self.seen += os.read(self.screen, 65536)

    def types(self, keys: bytes) -> None:
        os.write(self.screen, keys)


@asynccontextmanager
async def at_a_terminal(stage: Stage, *args: str) -> AsyncIterator[Person]:
    command = [sys.executable, "-P", "-c", ON_OUR_TERMINAL, *RUN[RUN.index("run") :], *args]
    async with a_terminal(stage, command) as person:
        yield person


@asynccontextmanager
async def a_terminal(stage: Stage, command: list[str]) -> AsyncIterator[Person]:
    screen, theirs = pty.openpty()
    termios.tcsetwinsize(screen, (33, 77))
    before = termios.tcgetattr(screen)
    environ = serve_environ(stage.serve.directory)
    process = await trio.lowlevel.open_process(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    try:
        yield Person(process, screen, before)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
            await process.wait()
        os.close(theirs)
        os.close(screen)


async def test_the_command_has_a_terminal_in_colours_of_our_size(stage: Stage) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; stty size; : > /dev/tty && echo controlling"
    with trio.fail_after(60):
        async with at_a_terminal(stage, "--tty", "--", "sh", "-c", script) as person:
            await person.sees(b"controlling")
            assert await person.process.wait() == 0
    assert b"terminal\r\n33 77\r\ncontrolling\r\n" in person.seen
    assert b"\r\r\n" not in person.seen


async def test_a_new_size_of_our_terminal_reaches_the_command(stage: Stage) -> None:
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done"
    with trio.fail_after(60):
        async with at_a_terminal(stage, "--tty", "--", "sh", "-c", script) as person:
            await person.sees(b"ready")
            termios.tcsetwinsize(person.screen, (20, 50))
            await person.sees(b"20 50")
            assert await person.process.wait() == 0


async def test_a_prompt_without_echo_is_answered_and_viewers_do_not_see_the_password(stage: Stage) -> None:
    program = "import getpass; print('got', len(getpass.getpass('Password: ')))"
    with trio.fail_after(60):
        task = f"tty-{next(stage.numbers)}"
        async with at_a_terminal(stage, "--tty", "--task", task, "--", sys.executable, "-c", program) as person:
            await person.sees(b"Password: ")
            person.types(b"s3cret\r")
            await person.sees(b"got 6")
            assert await person.process.wait() == 0
        async with fanline.Client(stage.serve.url) as client, client.task(task) as view:
            lines = [line.text for line in view.output]
    assert b"s3cret" not in person.seen
    assert lines[-1] == "got 6"
    assert not any("s3cret" in line for line in lines)


async def test_ctrl_c_goes_to_the_command_which_is_cancelled(stage: Stage) -> None:
    with trio.fail_after(60):
        task = f"tty-{next(stage.numbers)}"
        async with at_a_terminal(stage, "--tty", "--task", task, "--", "sh", "-c", "echo ready; sleep 60") as person:
            await person.sees(b"ready")
            person.types(b"\x03")
            assert await person.process.wait() == 128 + signal.SIGINT
        async with fanline.Client(stage.serve.url) as client, client.task(task) as view:
            assert view.snapshot.state is fanline.TaskState.CANCELLED


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 3", lambda person: None),
        ("kill -9 $$", lambda person: None),
        ("stty raw -echo; exec sleep 60", lambda person: person.process.terminate()),
    ],
    ids=["ends", "is killed", "is stopped in raw mode"],
)
async def test_our_terminal_is_as_before_however_the_command_ends(
    stage: Stage, script: str, end: Callable[[Person], None]
) -> None:
    with trio.fail_after(60):
        async with at_a_terminal(stage, "--tty", "--", "sh", "-c", f"echo ready; {script}") as person:
            await person.sees(b"ready")
            end(person)
            await person.process.wait()
            assert termios.tcgetattr(person.screen) == person.before


SCREENFUL = "\033[?1049h\033[?25l\033[?2004h\033[1;31mfull"
TIDIED = b"\x1b[0m\x1b[?2004l\x1b[?25h\x1b[?1049l"


async def test_a_program_that_fills_the_screen_and_is_killed_leaves_ours_as_it_was(stage: Stage) -> None:
    with trio.fail_after(60):
        async with at_a_terminal(stage, "--tty", "--", "sh", "-c", f"printf '{SCREENFUL}'; kill -9 $$") as person:
            await person.sees(TIDIED)
            assert await person.process.wait() == 128 + signal.SIGKILL


@pytest.mark.skipif(shutil.which("less") is None, reason="there is no less")
async def test_less_that_a_viewer_stops_leaves_our_terminal_as_it_was(stage: Stage) -> None:
    with trio.fail_after(60):
        task = f"tty-{next(stage.numbers)}"
        async with at_a_terminal(stage, "--tty", "--task", task, "--", "less", __file__) as person:
            await person.sees(b"\x1b[?1049h")
            await person.sees(b"has a terminal of its own")
            async with fanline.Client(stage.serve.url) as client, client.task(task) as view:
                await view.cancel()
            await person.process.wait()
            await person.sees(b"\x1b[?1049l")
            assert termios.tcgetattr(person.screen) == person.before


async def test_our_own_lines_stand_one_below_the_other_while_the_terminal_passes_everything_on(stage: Stage) -> None:
    with trio.fail_after(60):
        task = f"tty-{next(stage.numbers)}"
        async with at_a_terminal(stage, "--tty", "--task", task, "--", "sh", "-c", "echo ready; sleep 60") as person:
            await person.sees(b"ready\r\n")
            async with fanline.Client(stage.serve.url) as client, client.task(task) as view:
                await view.cancel()
            await person.sees(b"SIGKILL after 10 s\r\n")
            await person.process.wait()


async def test_ctrl_d_ends_the_input(stage: Stage) -> None:
    with trio.fail_after(60):
        async with at_a_terminal(stage, "--tty", "--", "sh", "-c", "echo ready; cat; echo ended") as person:
            await person.sees(b"ready")
            person.types(b"\x04")
            await person.sees(b"ended")
            assert await person.process.wait() == 0


async def test_an_unfinished_line_at_the_end_of_our_stdin_reaches_the_command_and_so_does_the_end(
    stage: Stage,
) -> None:
    with trio.fail_after(60):
        async with running(stage, "--tty", "--", "sh", "-c", "cat; echo ended", stdin=subprocess.PIPE) as job:
            assert job.process.stdin is not None
            await job.process.stdin.send_all(b"no newline")
            await job.process.stdin.aclose()
            await job.until(TaskEvent.COMPLETED)


async def test_a_failure_long_after_a_ctrl_c_is_a_failure(stage: Stage) -> None:
    script = "trap 'echo caught' INT; echo ready; read line; exit 3"
    with trio.fail_after(60):
        task = f"tty-{next(stage.numbers)}"
        async with at_a_terminal(stage, "--tty", "--task", task, "--", "bash", "-c", script) as person:
            await person.sees(b"ready")
            person.types(b"\x03")
            await person.sees(b"caught")
            person.types(b"go on\r")
            assert await person.process.wait() == 3
        async with fanline.Client(stage.serve.url) as client, client.task(task) as view:
            assert view.snapshot.state is fanline.TaskState.FAILED


SHELL = """
import os, signal, subprocess, sys, termios, fcntl
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, job.pid)
while True:
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    before = termios.tcgetattr(0)
    os.tcsetpgrp(0, os.getpgrp())
    print("job stopped" + " as before" * bool(before[3] & termios.ICANON and before[1] & termios.OPOST), flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job.pid)
    os.killpg(job.pid, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(status))
"""


async def test_ctrl_z_stops_the_command_and_us_and_fg_goes_on(stage: Stage) -> None:
    script = f"trap 'echo drawn again' WINCH; printf '{SCREENFUL}'; while ! read -t 1 line; do :; done; echo got $line"
    with trio.fail_after(60):
        task = f"tty-{next(stage.numbers)}"
        command = [*RUN, "--tty", "--task", task, "--", "bash", "-c", script]
        async with a_terminal(stage, [sys.executable, "-P", "-c", SHELL, *command]) as person:
            await person.sees(b"full")
            person.types(b"\x1a")
            await person.sees(TIDIED)
            await person.sees(b"job stopped as before")
            async with fanline.Client(stage.serve.url) as client, client.task(task) as view:
                assert view.snapshot.state is fanline.TaskState.PAUSED
            person.seen = b""
            person.types(b"\n")
            await person.sees(b"\x1b[?1049h")
            await person.sees(b"drawn again")
            person.types(b"hello\r")
            await person.sees(b"got hello")
            assert await person.process.wait() == 0


async def test_without_a_terminal_of_ours_it_has_one_nevertheless_and_colours_do_not_reach_viewers(
    stage: Stage,
) -> None:
    script = "test -t 1 && printf '\\033[31mred\\033[0m\\n'; stty size; cat; exit 5"
    with trio.fail_after(60):
        job, stdout, _ = await run_to_end(stage, "--tty", "--", "sh", "-c", script)
    assert stdout.replace(b"^D\b\b", b"") == b"\x1b[31mred\x1b[0m\r\n24 80\r\n"
    assert (job.lines(), job.process.returncode) == (["red", "24 80"], 5)
    assert job.reported[-1][0] == TaskEvent.FAILED


async def test_a_bar_that_is_redrawn_is_progress(stage: Stage) -> None:
    script = "printf 'at 10%% of it\\r'; sleep 0.2; printf 'at 20%% of it\\r'; sleep 0.2; printf 'at 30%% of it\\n'"
    with trio.fail_after(60):
        job, _, _ = await run_to_end(stage, "--tty", "--", "sh", "-c", script)
    assert [data["percent"] for event, data in job.reported if event == TaskEvent.PROGRESS][-1] >= 20


async def test_a_viewers_line_is_typed_without_keys_that_are_more_than_text(stage: Stage) -> None:
    with trio.fail_after(60):
        async with running(
            stage, "--tty", "--input", "--no-cancel", "--", "sh", "-c", "read a; echo got $a", stdin=subprocess.PIPE
        ) as job:
            await job.until(TaskEvent.STARTED)
            assert (await job.call("input", value="\x03\x1ahello\x04"))["t"] == "ok"
            await job.until(TaskEvent.OUTPUT, "got hello")
            await job.until(TaskEvent.COMPLETED)


async def test_a_child_that_is_left_behind_on_the_terminal_is_not_waited_for(stage: Stage) -> None:
    with trio.fail_after(60):
        job, _, _ = await run_to_end(stage, "--tty", "--", "sh", "-c", "nohup sleep 100 > /dev/null 2>&1 & echo done")
    assert job.process.returncode == 0
    assert job.lines() == ["done"]


async def test_a_command_that_does_not_exist_is_said_as_without_a_terminal(stage: Stage) -> None:
    with trio.fail_after(60):
        job, _, stderr = await run_to_end(stage, "--tty", "--", "no-such-command")
    assert job.process.returncode == 127
    assert b"cannot run no-such-command: No such file or directory" in stderr
