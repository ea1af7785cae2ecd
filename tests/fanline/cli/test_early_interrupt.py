"""Ctrl-C before a command has begun: no traceback, wherever its imports are."""

import os
import signal
import subprocess
import sys

import pytest
import trio

from tests.support.programs.interrupted import interrupted_at


@pytest.mark.parametrize("module", ["typer._click.core", "typer.main", "fanline.cli.commands", "trio._core._run"])
@pytest.mark.parametrize("command", [["tail", "x"], ["run", "--", "sleep", "60"], ["tasks"]])
async def test_ctrl_c_while_a_command_is_imported_is_no_traceback(command: list[str], module: str) -> None:
    with trio.fail_after(60):
        env = {**os.environ, "FANLINE_NATS": "nats://127.0.0.1:1"}
        code, text = await interrupted_at(module, [sys.executable, "-P", "-m", "fanline", *command], env)
    assert "Traceback" not in text
    assert code in (-signal.SIGINT, 130, 0, 1)  # 0 and 1: the command was faster


def test_nothing_slow_is_imported_before_ctrl_c_ends_the_command_in_silence() -> None:
    program = """
import atexit, importlib, sys
before = set(sys.modules)
import fanline.cli.app
found = set(sys.modules) - before
assert found == {"fanline", "fanline.cli", "fanline.cli.app"}, found
"""
    subprocess.run([sys.executable, "-I", "-P", "-c", program], check=True, capture_output=True, timeout=60)


def test_a_command_in_the_background_of_a_script_keeps_ignoring_ctrl_c() -> None:
    program = """
import signal, sys
from fanline.cli.app import main
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.argv = ["fanline", "--version"]
try:
    main()
finally:
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""
    subprocess.run([sys.executable, "-P", "-c", program], check=True, capture_output=True, timeout=60)
