"""`make pythons` runs on every version that is installed, names those that are not, and fails if one fails."""

import sys
from pathlib import Path

import pytest

from tests.support.tools.pythons import NEWEST, OLDEST, exit_well, find, try_all


def outcomes(installed: dict[int, bool]) -> list[str]:
    """`installed`: minor version -> whether the tests pass there."""
    return list(
        try_all(
            lambda minor: f"/bin/python3.{minor}" if minor in installed else None,
            lambda version, python: python == f"/bin/python{version}" and installed[int(version[2:])],
        )
    )


def test_each_installed_version_is_tried_and_the_others_are_skipped_by_name() -> None:
    found = outcomes({OLDEST: True, NEWEST: False})
    assert found[0] == f"python3.{OLDEST}: passed"
    assert found[1] == f"python3.{OLDEST + 1}: skipped, it is not installed"
    assert found[-1] == f"python3.{NEWEST}: FAILED"


def test_a_version_newer_than_the_newest_known_is_tried_if_it_is_installed() -> None:
    assert outcomes({NEWEST + 1: True})[-1] == f"python3.{NEWEST + 1}: passed"


@pytest.mark.parametrize(
    ("installed", "well"),
    [({11: True}, True), ({11: True, 12: True}, True), ({11: True, 12: False}, False), ({}, False)],
)
def test_the_run_fails_if_a_version_fails_or_none_is_installed(installed: dict[int, bool], well: bool) -> None:
    assert exit_well(outcomes(installed)) is well


@pytest.mark.process
def test_a_shim_that_does_not_run_gives_way_to_an_interpreter_that_pyenv_has_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = tmp_path / "shims" / "python3.11"
    installed = tmp_path / "pyenv" / "versions" / "3.11.9" / "bin" / "python3.11"
    for path in (shim, installed):
        path.parent.mkdir(parents=True)
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent))
    pyenv = (str(tmp_path / "pyenv"), "versions/{version}.*/bin/python{version}")
    monkeypatch.setattr("tests.support.tools.pythons._MANAGED", (pyenv,))
    assert find(11) is None
    installed.symlink_to(sys.executable)
    assert find(11) == str(installed)
