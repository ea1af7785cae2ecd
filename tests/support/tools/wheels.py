"""The last step of `make lock`: has each locked dependency a wheel for the newest CPython, or is it pure Python?

A dependency without either needs a compiler wherever the server is installed, or keeps it from the newest CPython. uv
is asked for wheels without downloading any, with the configuration it has, as in the steps before; what has none is
built, and is pure if the wheel that pip makes of it is for any platform.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.support.tools.pythons import NEWEST

_LOCKED = re.compile(r"^(?P<name>[\w.-]+)==(?P<rest>[^\\\n]+)", re.MULTILINE)
_AT_ONCE = 8
_UV = (str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", "--python", sys.executable)


class Findings(NamedTuple):
    """The requirements of a lock file, as `name==version`, with a marker if it has one."""

    with_wheel: list[str]
    pure: list[str]
    """Without a wheel, but built from source without a compiler."""
    neither: list[str]


def main(files: Sequence[str]) -> int:
    findings = [check(locked(Path(file).read_text()), has_wheel, is_pure) for file in files]
    for file, found in zip(files, findings, strict=True):
        print("\n".join(lines(file, found)))
    return 1 if any(found.neither for found in findings) else 0


def locked(text: str) -> list[str]:
    """The requirements in a lock file with hashes."""
    return [match.group().strip() for match in _LOCKED.finditer(text)]


def check(requirements: Sequence[str], wheel: Callable[[str], bool], pure: Callable[[str], bool]) -> Findings:
    """Sort the requirements. `pure` is asked only about those without a wheel."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        known = dict(zip(requirements, pool.map(wheel, requirements), strict=True))
    without = {requirement: pure(requirement) for requirement, has in known.items() if not has}
    return Findings([each for each in known if known[each]], _which(without, True), _which(without, False))


def lines(file: str, found: Findings) -> Iterator[str]:
    """What to print about a lock file."""
    yield f"{file}: {len(found.with_wheel)} dependencies have a wheel for CPython 3.{NEWEST}"
    if found.pure:
        yield f"{file}: pure Python, built from source: {', '.join(found.pure)}"
    if found.neither:
        yield f"{file}: NEITHER a wheel for CPython 3.{NEWEST} nor pure Python: {', '.join(found.neither)}"


def has_wheel(requirement: str) -> bool:
    """Whether there is a wheel for the newest CPython on this platform; true if the marker leaves the platform out."""
    command = (*_UV, "--no-deps", "--only-binary", ":all:", "--python-version", f"3.{NEWEST}", "-")
    return subprocess.run(command, input=requirement, capture_output=True, text=True, check=False).returncode == 0


def is_pure(requirement: str) -> bool:
    """Whether the wheel that pip builds from source is for every platform."""
    with TemporaryDirectory(prefix="fanline-wheel-") as directory:
        command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", directory, requirement)
        built = subprocess.run(command, capture_output=True, check=False).returncode == 0
        return built and any(Path(directory).glob("*-none-any.whl"))


def _which(answers: dict[str, bool], wanted: bool) -> list[str]:
    return [each for each, answer in answers.items() if answer is wanted]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
