"""The table of `make mutants` names what there is."""

import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.tools.mutants import matching_tests

TABLE: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]


@pytest.mark.parametrize("module", TABLE)
def test_each_module_is_there_and_so_are_the_tests_that_it_names(module: str) -> None:
    assert (ROOT / "src" / "fanline" / module).is_file()
    assert matching_tests(ROOT, TABLE[module])


def test_a_pattern_that_matches_no_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^no tests match tests/gone\*\.py$"):
        matching_tests(tmp_path, ["tests/gone*.py"])
