"""Which items of the existing systems no test names: `python -m tests.support.tools.systems [MARK ...]`.

Without a MARK, those marked `wire`. The items are those of docs/reference/existing-systems.md; a test names one in a
comment, as in `# S2-41, S2-42`.
"""

import re
import sys
from collections.abc import Iterable
from typing import NamedTuple

from tests.support.paths import ROOT

MARKS = ("wire", "call", "web", "ops", "declined")
_PAGE = ROOT / "docs" / "reference" / "existing-systems.md"
_ROW = re.compile(r"^\| (S\d-\d+) \| (.+) \| (\w+)(?:: (.+))? \|$", re.MULTILINE)
_ID = re.compile(r"\bS[1-5]-\d\d+\b")


class Item(NamedTuple):
    """A row of the page."""

    id: str
    text: str
    mark: str
    reason: str


def items() -> list[Item]:
    """All rows of the page."""
    return [Item(*row) for row in _ROW.findall(_PAGE.read_text(encoding="utf-8"))]


def named() -> set[str]:
    """The ids that a comment of a test names."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            found.update(_ID.findall(line.partition("#")[2]))
    return found


def main(marks: Iterable[str]) -> int:
    wanted, tested = set(marks) or {"wire"}, named()
    left = [item for item in items() if item.mark in wanted and item.id not in tested]
    for item in left:
        print(f"{item.id:7} {item.mark:5} {item.text}")
    print(f"{len(left)} of {sum(item.mark in wanted for item in items())} items without a test")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
