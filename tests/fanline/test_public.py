"""The public surface is a list, and the package knows its own `protocol`."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fanline
from tests.support.paths import ROOT


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
        "NatsOptions",
        "NotPublished",
        "OutputLine",
        "PastMessages",
        "Position",
        "PresenceData",
        "PresenceNotice",
        "PresenceView",
        "PresentUser",
        "Published",
        "Receipt",
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
        "publish",
        "tqdm",
        "trange",
    ]
    assert all(hasattr(fanline, name) for name in fanline.__all__)


def test_everything_else_is_private() -> None:
    extra = {name for name, value in vars(fanline).items() if not isinstance(value, types.ModuleType)}
    assert {name for name in extra if not name.startswith("_")} <= set(fanline.__all__)


def test_the_package_is_typed() -> None:
    assert (Path(fanline.__file__).parent / "py.typed").exists()


@pytest.mark.process
@pytest.mark.parametrize("room", ["protocol", "engine", "workers", "loadtest"])
def test_a_room_is_not_imported_by_the_name_of_its_folder(room: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert f"this package is imported as fanline.{room}" in ended.stderr.splitlines()[-1]


@pytest.mark.process
def test_a_job_that_only_reports_imports_no_event_loop() -> None:
    script = """
import fanline, sys
with fanline.Task("job", nats="127.0.0.1:1", linger=0) as task:
    task.log("x")
try:
    with fanline.Task("job", nats="127.0.0.1:1", linger=0):
        1 / 0
except ZeroDivisionError:
    pass
assert not {"trio", "asyncio", "multiprocessing", "wsproto"} & sys.modules.keys()
"""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr


def test_every_public_name_is_found_where_the_package_says() -> None:
    assert {*fanline._MODULE_OF, "__version__"} == set(fanline.__all__)
    assert set(fanline.__all__) <= set(dir(fanline))
    with pytest.raises(AttributeError, match="no attribute 'Tsak'"):
        fanline.Tsak  # type: ignore[attr-defined]  # noqa: B018  # the access is the point
