"""`make pythons`: the tests on every installed CPython from 3.11 on, each in a virtual environment of its own.

An interpreter is looked for on the PATH, and where pyenv and uv put theirs. Versions up to NEWEST that are not
installed are skipped by name. The run fails if the tests fail on one version, or if no version is installed.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tests.support.paths import ROOT

OLDEST, NEWEST = 11, 14
"""The minor versions of CPython 3 that are released and supported. Newer ones are tried if they are installed."""
_TO_COME = 6
_MANAGED = (
    (os.environ.get("PYENV_ROOT") or "~/.pyenv", "versions/{version}.*/bin/python{version}"),
    (os.environ.get("UV_PYTHON_INSTALL_DIR") or "~/.local/share/uv/python", "cpython-{version}.*/bin/python{version}"),
)

Find = Callable[[int], str | None]
"""The path of CPython 3 with this minor version; None if it is not installed."""
Run = Callable[[str, str], bool]
"""Runs the tests, given a version and the path of its interpreter; says whether they passed."""


def main(args: Sequence[str]) -> int:
    """`args` go to pytest."""

    def run(version: str, python: str) -> bool:
        options = (f"VENV=.venvs/{version}", f"PYTHON={python}", f"ARGS={shlex.join(args)}")
        return subprocess.run(["make", "test", *options], cwd=ROOT, check=False).returncode == 0

    outcomes = list(try_all(find, run))
    print("\n".join(outcomes))
    return 0 if exit_well(outcomes) else 1


def try_all(find: Find, run: Run) -> Iterator[str]:
    """One line for each version: `python3.11: passed`."""
    for minor in range(OLDEST, NEWEST + _TO_COME):
        name = f"python3.{minor}"
        python = find(minor)
        if python is not None:
            print(f"\n{name}: {python}", flush=True)
            yield f"{name}: {'passed' if run(f'3.{minor}', python) else 'FAILED'}"
        elif minor <= NEWEST:
            yield f"{name}: skipped, it is not installed"


def exit_well(outcomes: Iterable[str]) -> bool:
    """Whether the tests ran on some version, and failed on none."""
    words = {outcome.split()[1] for outcome in outcomes}
    return "passed" in words and "FAILED" not in words


def find(minor: int) -> str | None:
    """The first interpreter of the version that runs. A shim of pyenv also exists for a version that is off."""
    return next(filter(_runs, _candidates(f"3.{minor}")), None)


def _candidates(version: str) -> Iterator[str]:
    on_path = shutil.which(f"python{version}")
    if on_path:
        yield on_path
    for root, pattern in _MANAGED:
        yield from map(str, sorted(Path(root).expanduser().glob(pattern.format(version=version)), reverse=True))


def _runs(python: str) -> bool:
    code = "import sys, ensurepip, venv; sys.exit(sys.implementation.name != 'cpython')"
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
