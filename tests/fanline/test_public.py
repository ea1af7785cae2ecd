"""The public surface is a list, and the package knows its own `protocol`."""

import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import fanline

ROOT = Path(fanline.__file__).parent.parent


def test_the_public_names_are_these() -> None:
    assert sorted(fanline.__all__) == [
        "Answer",
        "AskExpired",
        "AsyncTask",
        "Call",
        "Client",
        "ConnectionLost",
        "ConnectionRefused",
        "FanlineError",
        "Gap",
        "LogHandler",
        "Message",
        "OutputLine",
        "Position",
        "Published",
        "ServerError",
        "SlowConsumer",
        "Snapshot",
        "Subscription",
        "SyncTask",
        "Task",
        "TaskCancelled",
        "TaskEvent",
        "TaskState",
        "TaskUpdate",
        "TaskView",
        "__version__",
        "current_task",
        "tqdm",
        "trange",
    ]
    assert all(hasattr(fanline, name) for name in fanline.__all__)


def test_everything_else_is_private() -> None:
    modules = {path.stem for path in Path(fanline.__file__).parent.glob("*.py")}
    assert all(name.startswith("_") for name in modules)
    extra = {name for name, value in vars(fanline).items() if not isinstance(value, types.ModuleType)}
    assert {name for name in extra if not name.startswith("_")} <= set(fanline.__all__)


def test_the_version_is_the_distributions() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == fanline.__version__


def test_the_package_is_typed() -> None:
    assert (Path(fanline.__file__).parent / "py.typed").exists()


def test_a_foreign_protocol_module_is_named_instead_of_breaking_at_random(tmp_path: Path) -> None:
    (tmp_path / "protocol.py").write_text("x = 1\n")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-P", "-c", "import fanline"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 1
    last_line = ended.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: another top-level module named `protocol`")
    assert str(tmp_path / "protocol.py") in last_line
