"""The plugin of `pytest --fanline` beside xdist, whose processes are made up."""

from types import SimpleNamespace
from typing import Any

import pytest

from fanline import pytest_plugin
from fanline.queues.pytest_run import PytestRun


class _Plugins:
    def __init__(self) -> None:
        self.registered: list[Any] = []

    def register(self, plugin: Any, name: str) -> None:
        self.registered.append(plugin)


def _config(tmp_path: Any, **attributes: Any) -> Any:
    option = SimpleNamespace(collectonly=False)
    names = {"pluginmanager": _Plugins(), "rootpath": tmp_path, "option": option, "getoption": lambda _: "nightly"}
    return SimpleNamespace(**names | attributes)


def test_a_process_of_xdist_reports_nothing_itself(tmp_path: Any) -> None:
    config = _config(tmp_path, workerinput={})
    pytest_plugin.pytest_configure(config)
    assert config.pluginmanager.registered == []
    config = _config(tmp_path)
    pytest_plugin.pytest_configure(config)
    assert [type(each) for each in config.pluginmanager.registered] == [PytestRun]


def test_the_main_process_of_xdist_counts_the_tests_that_its_processes_have_collected() -> None:
    run = PytestRun("nightly", "project")
    run.pytest_collection_finish(SimpleNamespace(items=[]))  # type: ignore[arg-type]
    for _ in range(2):
        run.pytest_xdist_node_collection_finished(node=None, ids=["test_a.py::test_1", "test_a.py::test_2"])
    for when in ("setup", "call", "teardown"):
        report: Any = SimpleNamespace(when=when, failed=False, skipped=False, nodeid="test_a.py::test_1")
        run.pytest_runtest_logreport(report)
    (_, progress) = run._producer.take(1e12, 10)
    assert progress.data == {"done": 1, "total": 2, "stage": "test_a.py", "message": "1 passed"}


def test_a_test_in_which_a_process_of_xdist_crashes_has_failed_and_is_done() -> None:
    run = PytestRun("nightly", "project")
    run._begin(1)
    report: Any = SimpleNamespace(
        when="???", failed=True, skipped=False, nodeid="test_a.py::test_1", longreprtext="worker 'gw0' crashed"
    )
    run.pytest_runtest_logreport(report)
    _, progress, output = run._producer.take(1e12, 10)
    assert progress.data == {"done": 1, "total": 1, "stage": "test_a.py", "message": "1 failed"}
    assert output.data["lines"] == ["FAILED test_a.py::test_1", "worker 'gw0' crashed"]


@pytest.mark.parametrize(
    ("status", "failed", "interrupt", "end"),
    [
        (0, 0, None, "None"),
        (1, 1, None, "1 failed"),
        (2, 0, KeyboardInterrupt, "the task was cancelled"),
        (2, 1, KeyboardInterrupt, "the task was cancelled"),
        (2, 1, pytest.exit.Exception, "the task was cancelled"),
        (2, 0, pytest.Session.Interrupted, "the task was cancelled"),
        (2, 1, pytest.Session.Interrupted, "1 failed"),
        (5, 0, None, "no tests were collected"),
        (3, 1, None, "1 failed"),
    ],
)
def test_the_exit_code_and_what_interrupted_it_say_how_the_run_ended(
    status: int, failed: int, interrupt: type[BaseException] | None, end: str
) -> None:
    run = PytestRun("nightly", "project")
    run._counts["failed"] = failed
    if interrupt is not None:
        run.pytest_keyboard_interrupt(SimpleNamespace(type=interrupt))  # type: ignore[arg-type]
    assert str(run._end(status)) == end
