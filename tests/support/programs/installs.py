"""Fanline as it is installed: built from a copy of the tree, into virtual environments that hold nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.support.paths import ROOT

SECONDS = 60
_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
_OFFLINE = ("--no-index", "--no-deps", "--no-build-isolation")
_LEFT_OUT = ("__pycache__", "node_modules", "build", "dist", "*.egg-info", ".git", ".venv*", ".*_cache", ".hypothesis")


def copy_tree(destination: Path) -> Path:
    """A copy of the repository as a fresh clone has it, symlinks included."""
    return Path(shutil.copytree(ROOT, destination, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT)))


def build_wheel(source: Path, directory: Path) -> Path:
    """The wheel that pip makes of a tree or a source distribution."""
    _run(sys.executable, *_PIP, "wheel", *_OFFLINE, "--wheel-dir", str(directory), str(source))
    (wheel,) = directory.glob("*.whl")
    return wheel


def build_sdist(tree: Path, directory: Path) -> Path:
    """The source distribution that the build backend makes of a tree."""
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(directory)!r})"
    _run(sys.executable, "-c", code, cwd=tree)
    (archive,) = directory.glob("*.tar.gz")
    return archive


class Environment:
    """A virtual environment that holds the dependencies asked for, linked from the environment of the tests."""

    def __init__(self, directory: Path, requirements: Iterable[Requirement]) -> None:
        venv.create(directory, symlinks=True)
        self.scripts = directory / "bin"
        self.python = self.scripts / "python"
        self.packages = next((directory / "lib").glob("python3*/site-packages"))
        for distribution in _closure(requirements):
            self._link(distribution)

    def install(self, *what: str) -> None:
        """Install a wheel, or `-e` and a tree."""
        _run(sys.executable, *_PIP, "--python", str(self.python), "install", "--no-compile", *_OFFLINE, *what)

    def run(
        self, *command: str, cwd: Path, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment to its end, whatever its exit code."""
        argv = (str(self.scripts / command[0]), *command[1:])
        return subprocess.run(
            argv, cwd=cwd, env=clean_environ(environ), capture_output=True, text=True, check=False, timeout=SECONDS
        )

    def _link(self, distribution: metadata.Distribution) -> None:
        for parts in {file.parts for file in distribution.files or ()}:
            if parts[0] not in ("..", "__pycache__"):
                _link(self.packages / parts[0], Path(str(distribution.locate_file(parts[0]))))
            elif "bin" in parts:
                program = Path(sysconfig.get_path("scripts"), parts[-1])
                if program.read_bytes()[:2] != b"#!":  # a script runs in the environment it was installed into
                    _link(self.scripts / parts[-1], program)


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target)


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without what changes how Python or Fanline behave, and with `extra`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FANLINE_"))}
    return inherited | dict(extra or {})


def requirements_of(wheel: Path, *extras: str) -> list[Requirement]:
    """What a wheel requires, with some of its extras."""
    (distribution,) = metadata.distributions(path=[str(wheel)])
    return list(_required_by(distribution, extras))


def _closure(requirements: Iterable[Requirement]) -> Iterator[metadata.Distribution]:
    """The distributions that meet the requirements, and theirs in turn."""
    todo, seen = list(requirements), set[str]()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        distribution = metadata.distribution(requirement.name)
        yield distribution
        todo += _required_by(distribution, requirement.extras)


def _required_by(distribution: metadata.Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    wanted = [{"extra": extra} for extra in ("", *extras)]
    for requirement in map(Requirement, distribution.requires or ()):
        if requirement.marker is None or any(map(requirement.marker.evaluate, wanted)):
            yield requirement


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=clean_environ(), capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
