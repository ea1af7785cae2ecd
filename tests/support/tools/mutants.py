"""`make mutants`: do the unit tests notice when a module decides otherwise?

For each module in the table `[tool.mutants]` of pyproject.toml, mutmut changes one detail at a time (an operator, a
bound, an argument) and runs the tests that the table names. A change that no test notices is a mutant that survives,
and is printed as a diff. A random sample keeps the run short; its seed is printed, and FANLINE_TEST_SEED replays it.

mutmut follows no symbolic links, so it works on a copy of the tree in which `fanline` holds its rooms as real folders.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from configparser import ConfigParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name

from tests.support.paths import ROOT
from tests.support.seeds import new_seed

GOAL = 0.9
"""Share of the mutants that must be killed."""
_MUTMUT = Path(sys.executable).with_name("mutmut")
_KILLED = ("killed", "timeout", "segfault")


class Outcome(NamedTuple):
    """What became of the mutants of one module."""

    tried: int
    survived: int


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make mutants ARGS=...", description="Test the tests by changing the code.")
    parser.add_argument("--sample", type=int, default=25, help="mutants to try in each module; 0: all (default: 25)")
    parser.add_argument("modules", nargs="*", help="as in pyproject.toml; all if none is named")
    wanted = parser.parse_args(args)
    table: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]
    if unknown := set(wanted.modules) - set(table):
        parser.error(f"not in [tool.mutants] of pyproject.toml: {', '.join(sorted(unknown))}")
    seed = new_seed()
    with TemporaryDirectory(prefix="fanline-mutants-", ignore_cleanup_errors=True) as directory:
        _copy_tree(Path(directory))
        os.chdir(directory)
        outcomes = [_try(module, table[module], wanted.sample, seed) for module in wanted.modules or table]
        os.chdir(ROOT)
    return _report(outcomes)


def _copy_tree(target: Path) -> None:
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)


def _try(module: str, patterns: Iterable[str], sample: int, seed: int) -> Outcome:
    path = Path("src/fanline", module)
    _configure(path, matching_tests(Path(), patterns), seed)
    names = _sample(path, sample, random.Random(f"{seed}/{module}"))
    shutil.rmtree("mutants", ignore_errors=True)
    environ = os.environ | {"FANLINE_TEST_SEED": str(seed)}
    run = subprocess.run(
        [_MUTMUT, "run", *names], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(f"{run.stdout[-5000:]}\nmutmut could not test {module}")
    survivors = _survivors(path, names)
    print(f"\n{module}: {len(names) - len(survivors)} of {len(names)} mutants killed", flush=True)
    for name in survivors:
        print(f"\n{name} survived\n{get_diff_for_mutant(name, path=path)}", flush=True)
    return Outcome(len(names), len(survivors))


def matching_tests(tree: Path, patterns: Iterable[str]) -> list[Path]:
    """The files and folders that the patterns of a row stand for; SystemExit for a pattern without any."""
    found = list[Path]()
    for pattern in patterns:
        matching = sorted(tree.glob(pattern))
        if not matching:  # pytest would run every test
            raise SystemExit(f"no tests match {pattern}")
        found += matching
    return found


def _configure(path: Path, tests: Iterable[Path], seed: int) -> None:
    parser = ConfigParser()
    parser["mutmut"] = {
        "source_paths": "src",
        "only_mutate": str(path),
        "also_copy": "docs",
        "pytest_add_cli_args": f"-p\nno:cacheprovider\n--hypothesis-seed={seed}",
        "pytest_add_cli_args_test_selection": "\n".join(map(str, tests)),
        "timeout_multiplier": "3",
        "use_git_change_detection": "false",
        "track_dependencies": "false",
    }
    with Path("setup.cfg").open("w") as file:
        parser.write(file)


def _sample(path: Path, count: int, chance: random.Random) -> list[str]:
    """The names of the mutants to try."""
    names = [get_mutant_name(path, name) for name in mutate_file_contents(str(path), path.read_text()).mutant_names]
    return chance.sample(names, count) if 0 < count < len(names) else names


def _survivors(path: Path, names: Iterable[str]) -> list[str]:
    data = SourceFileMutationData(path=path)
    data.load()
    return [name for name in names if status_by_exit_code[data.exit_code_by_key[name]] not in _KILLED]


def _report(outcomes: Sequence[Outcome]) -> int:
    tried = sum(outcome.tried for outcome in outcomes)
    share = 1 - sum(outcome.survived for outcome in outcomes) / tried
    print(f"\n{share:.1%} of {tried} mutants were killed; the goal is {GOAL:.0%}")
    return 0 if share >= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
