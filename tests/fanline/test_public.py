"""The public surface is a list, and the package knows its own `protocol`."""

import inspect
import os
import re
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
        "Ask",
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
        "PlainClient",
        "PlainPresenceView",
        "PlainSubscription",
        "PlainTaskView",
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
        "TaskData",
        "TaskEvent",
        "TaskRetrying",
        "TaskState",
        "TaskUpdate",
        "TaskView",
        "__version__",
        "current_task",
        "notify",
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


@pytest.mark.process
def test_importing_the_package_takes_under_120_milliseconds_and_imports_no_server() -> None:
    script = """
import sys, time
begun = time.perf_counter()
import fanline
for name in sys.argv[1:]:
    getattr(fanline, name)
print(time.perf_counter() - begun)
servers = [name for name in sys.modules if name.startswith(("fanline.engine", "fanline.workers", "fanline.loadtest"))]
assert not servers, servers
assert not {"fastapi", "hypercorn", "nats", "httptools", "httpx", "asyncio", "trio"} & sys.modules.keys()
"""
    assert min(_seconds(script) for _ in range(5)) < 0.12
    _seconds(script, *(name for name in fanline.__all__ if name not in ("tqdm", "trange")))  # tqdm knows asyncio


def _seconds(script: str, *arguments: str) -> float:
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return float(ended.stdout)


@pytest.mark.parametrize("name", [name for name in fanline.__all__ if name != "__version__"])
def test_help_says_what_every_public_name_and_each_of_its_methods_is(name: str) -> None:
    public = getattr(fanline, name)
    assert public.__doc__
    assert public.__doc__ != getattr(getattr(public, "__base__", None), "__doc__", None)
    if not isinstance(public, type):
        return
    for attribute, value in vars(public).items():
        said = value.fget if isinstance(value, property) else value
        if not attribute.startswith("_") and isinstance(said, types.FunctionType):
            assert inspect.getdoc(getattr(public, attribute)), attribute


@pytest.mark.parametrize("name", ["Answer", "Gap", "Message", "PastMessages", "PresenceNotice", "Published"])
def test_help_of_what_a_program_is_given_names_its_fields(name: str) -> None:
    record = getattr(fanline, name)
    for field in record.__annotations__:
        assert re.search(rf"\b{field}\b", record.__doc__), field
