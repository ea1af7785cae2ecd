"""A test run as a task: `pytest --fanline`, or `pytest --fanline=nightly` to choose its ID.

Viewers see how many tests are done and which file is at work, each failure with its text as lines of the log, and at
the end the counts as the result. With pytest-xdist it is one task for all its processes. Without the option the plugin
does nothing, and imports nothing of Fanline.
"""

import pytest

_NEW_ID = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fanline").addoption(
        "--fanline",
        nargs="?",
        const=_NEW_ID,
        metavar="ID",
        help="report the test run as the task ID, by default a new one; `fanline tail ID` shows it",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    task_id = config.getoption("--fanline")
    # A process of xdist sends its reports to the main one; a list of tests is no run.
    if task_id is None or hasattr(config, "workerinput") or config.option.collectonly:
        return
    from fanline.queues.pytest_run import PytestRun

    try:
        run = PytestRun(task_id or None, config.rootpath.name or "tests")
    except ValueError as error:
        raise pytest.UsageError(f"--fanline: {error}") from None
    config.pluginmanager.register(run, "fanline-run")
