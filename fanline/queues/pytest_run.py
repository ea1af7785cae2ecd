"""What `pytest --fanline` says of a test run: registered as a plugin, it hears the reports of all tests."""

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from fanline.errors import FanlineError
from fanline.nats.settings import environment_options
from fanline.producer.calls import TaskCancelled
from fanline.producer.checks import MAX_NAME, TaskSettings, check_settings
from fanline.producer.exporter.exporter import export
from fanline.producer.fresh_id import fresh_id
from fanline.producer.run.producer import Producer

_HEARTBEAT_SECONDS = 10.0
_LINGER_SECONDS = 5.0
_OUTCOMES = ("passed", "failed", "errors", "skipped")
_AROUND = ("setup", "teardown")
_PHASES = ("setup", "call", "teardown")


class PytestRun:
    """One run, in the main process. Raises ValueError if no task can have the ID.

    It is not `fanline.current_task()` of the tests: what they test may use tasks of its own.
    """

    def __init__(self, task_id: str | None, project: str) -> None:
        name = task_id or fresh_id(f"pytest-{project}")
        nats = environment_options()
        settings = TaskSettings(
            name, f"Tests of {project}"[:MAX_NAME], "pytest", None, _HEARTBEAT_SECONDS, None, nats, _LINGER_SECONDS
        )
        self._producer = Producer(check_settings(settings))
        self._session: pytest.Session | None = None
        self._counts = Counter[str]()
        self._done = 0
        self._total: int | None = None
        self._interrupted = False  # by Ctrl-C, or pytest.exit

    def pytest_report_header(self) -> str:
        return f"fanline: `fanline tail {self._producer.channel}` shows this run"

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        self._producer.on_cancel(self._cancel)
        export(self._producer)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:  # the main process of xdist has none
            self._begin(len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Each process of xdist has collected the same tests."""
        self._begin(len(ids))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._counts["errors"] += 1
            self._log("ERROR", report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Three a test: setup, call and teardown. A test is passed by its call, and done after its teardown. Of a test
        in which a process of xdist has crashed there is one report, of no phase.
        """
        if report.failed:
            self._counts["errors" if report.when in _AROUND else "failed"] += 1
            self._log("ERROR" if report.when in _AROUND else "FAILED", report)
        elif report.skipped:
            self._counts["skipped"] += 1
        elif report.when == "call":
            self._counts["passed"] += 1
        if report.when == "teardown" or report.when not in _PHASES:
            self._done += 1
            file = report.nodeid.partition("::")[0]
            self._producer.progress(None, self._summary(), file, self._done, self._total)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Subclasses are how pytest and xdist stop by themselves, such as after the first failure (`-x`)."""
        self._interrupted = excinfo.type in (KeyboardInterrupt, pytest.exit.Exception)

    def pytest_sessionfinish(self, exitstatus: int | pytest.ExitCode) -> None:
        counts = {outcome: self._counts[outcome] for outcome in _OUTCOMES}
        self._producer.set_result({**counts, "exit_code": int(exitstatus)})
        self._producer.end(self._end(exitstatus))
        with suppress(TimeoutError):
            self._producer.settled.result(_LINGER_SECONDS)

    def _begin(self, total: int) -> None:
        self._total = total
        self._producer.progress(None, None, None, self._done, total)

    def _end(self, exitstatus: int | pytest.ExitCode) -> BaseException | None:
        if self._producer.cancelled is not None:
            return self._producer.cancelled
        if exitstatus == pytest.ExitCode.OK:
            return None
        failures = self._counts["failed"] + self._counts["errors"]
        if exitstatus == pytest.ExitCode.INTERRUPTED and (self._interrupted or not failures):
            return TaskCancelled()
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            return FanlineError("no tests were collected")
        return FanlineError(self._summary() or f"pytest ended with exit code {int(exitstatus)}")

    def _cancel(self) -> None:
        """A viewer has asked the run to stop. It does after the present test, with xdist after that of each process."""
        if self._session is not None:
            xdist = self._session.config.pluginmanager.getplugin("dsession")  # it does not ask the session
            (xdist or self._session).shouldstop = str(self._producer.cancelled)

    def _summary(self) -> str:
        """3 failed, 40 passed."""
        shown = ("failed", "errors", "passed", "skipped")
        return ", ".join(f"{self._counts[outcome]} {outcome}" for outcome in shown if self._counts[outcome])

    def _log(self, word: str, report: pytest.TestReport | pytest.CollectReport) -> None:
        self._producer.log(f"{word} {report.nodeid}\n{report.longreprtext}", "stderr")
