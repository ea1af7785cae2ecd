"""Without what only Linux has, jobs and commands work, and what needs a server here says so in a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

ON_MACOS = """
import asyncio, multiprocessing, os, select, signal, socket, ssl, subprocess, sys, sysconfig, threading, urllib.request
import trio, trio_websocket, rich.console, typer, sniffio  # which know the system that they are on

for module, names in {
    os: ("pidfd_open", "sched_getaffinity", "memfd_create", "eventfd", "splice", "sendfile"),
    signal: ("pidfd_send_signal", "SIGRTMIN", "SIGPWR", "sigtimedwait"),
    socket: ("SO_REUSEPORT_LB", "SO_PEERCRED", "TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_QUICKACK", "SOCK_NONBLOCK",
             "SOCK_CLOEXEC", "AF_NETLINK"),
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sysconfig.get_config_vars()
sys.platform = "darwin"
"""
IMPORTS = """
import importlib, pkgutil
import fanline
for package in ("cli", "client", "nats", "producer", "publishing", "protocol"):
    room = importlib.import_module(f"fanline.{package}")
    for found in pkgutil.walk_packages(room.__path__, f"fanline.{package}."):
        importlib.import_module(found.name)
for name in fanline.__all__:
    getattr(fanline, name)
assert not [name for name in sys.modules if name.startswith(("fanline.engine", "fanline.workers"))]
"""
JOB = """
import pickle
import fanline
with fanline.Task("job", nats="nats://127.0.0.1:1", linger=0) as task:
    task.progress(50)
    pickle.loads(pickle.dumps(task)).log("from a handle")
    task.result({"ok": True})
receipt = fanline.publish("news:all", 1, nats="nats://127.0.0.1:1")
print("done")
"""
COMMAND = """
from fanline.cli.app import main
sys.argv = ["fanline", *ARGUMENTS]
main()
"""


def _run(program: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "FANLINE_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-c", ON_MACOS + program]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_everything_but_the_server_can_be_imported(tmp_path: Path) -> None:
    ended = _run(IMPORTS, tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_job_reports(tmp_path: Path) -> None:
    ended = _run(JOB, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_a_server_is_refused_in_a_sentence(command: str, tmp_path: Path) -> None:
    ended = _run(f"ARGUMENTS = ['{command}']\n{COMMAND}", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"fanline: error: `fanline {command}` runs on Linux only; here, jobs and the other")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["sub", "-h"], ["run", "--", "true"], ["tail", "x"]])
def test_the_other_commands_work(arguments: list[str], tmp_path: Path) -> None:
    ended = _run(f"ARGUMENTS = {arguments!r}\n{COMMAND}", tmp_path)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == (1 if arguments == ["tail", "x"] else 0), ended.stderr  # there is no server
