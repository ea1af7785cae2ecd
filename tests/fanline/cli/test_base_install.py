"""Without the extra `server` everything works but the commands that run a server, and those say what is missing."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fanline.cli.server.extra import MODULES, NATS_SERVER
from tests.support.paths import ROOT

OF_OTHERS = ("arq.py", "celery.py", "dramatiq.py", "fastapi.py", "pytest_plugin.py", "pytest_run.py", "rq.py")
"""For programs that have the packages of these names."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    assert found is not None, requirement
    return canonicalize_name(found[0])  # typing_extensions is typing-extensions


def _project() -> dict[str, list[str]]:
    """The requirements in pyproject.toml: those of each extra, and under "" those of the base."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def _with_dependencies(names: list[str], found: set[str]) -> set[str]:
    """The installed distributions that these need, with them."""
    for name in set(names) - found:
        found.add(name)
        needed = [each for each in metadata.requires(name) or [] if "extra ==" not in each]
        _with_dependencies([_name(each) for each in needed if _is_installed(_name(each))], found)
    return found


def _is_installed(name: str) -> bool:
    """A dependency of another platform or Python version is not."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _entries(distribution: str) -> Iterator[Path]:
    """Its files and folders in site-packages."""
    packages = Path(sysconfig.get_path("purelib"))
    for top in {file.parts[0] for file in metadata.files(distribution) or []}:
        if top not in ("..", "__pycache__"):
            yield packages / top


@pytest.fixture(scope="module")
def base_only(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a Python that has the base dependencies and nothing else."""
    packages = tmp_path_factory.mktemp("packages")
    for name in _base():
        for entry in _entries(name):
            (packages / entry.name).symlink_to(entry)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}


def _python(base_only: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-P", *args]  # -S: without the packages of our own environment
    return subprocess.run(command, env=base_only, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("command", "missing"), [("serve", list(MODULES)), ("demo", [*MODULES, NATS_SERVER])], ids=["serve", "demo"]
)
def test_a_command_that_runs_a_server_says_what_is_missing(
    base_only: dict[str, str], command: str, missing: list[str]
) -> None:
    ended = _python(base_only, "-m", "fanline", command)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"fanline: error: `fanline {command}` needs packages that are not installed ({', '.join(missing)}): "
        "pip install 'fanline[server]'\n"
    )


@pytest.mark.parametrize("command", ["run", "tail", "tasks", "nats-url", "pub", "sub"])
def test_every_other_command_works(base_only: dict[str, str], command: str) -> None:
    ended = _python(base_only, "-m", "fanline", command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_command_runs_as_a_task(base_only: dict[str, str], tmp_path: Path) -> None:
    environ = {**base_only, "FANLINE_STATE_DIR": str(tmp_path)}
    ended = _python(environ, "-m", "fanline", "run", "--", "echo", "hello")
    assert (ended.returncode, ended.stdout) == (0, "hello\n")


def test_every_module_of_the_sdk_can_be_imported(base_only: dict[str, str]) -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / "fanline").rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts) for path in files if path.name not in OF_OTHERS]
    assert len(modules) > 30
    ended = _python(base_only, "-c", f"import importlib\nfor name in {modules}: importlib.import_module(name)")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_server_needs_is_what_the_extra_installs() -> None:
    packages = {package for each in _project()["server"] for package in _beyond_the_base(Requirement(each))}
    assert packages == {*MODULES, NATS_SERVER}


def _beyond_the_base(requirement: Requirement) -> set[str]:
    """What it adds to the base: itself, or what an extra of a package of the base asks for."""
    if requirement.name not in {_name(each) for each in _project()[""]}:
        return {requirement.name}
    asked = [Requirement(each) for each in metadata.requires(requirement.name) or []]
    extras = [{"extra": extra} for extra in requirement.extras]
    return {each.name for each in asked if each.marker and any(map(each.marker.evaluate, extras))} - _base()


def _base() -> set[str]:
    """The base dependencies, and theirs."""
    return _with_dependencies([_name(each) for each in _project()[""]], set())
