"""A name belongs to one thing: no two public classes of the project share one, whatever room they are in."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest

from tests.support.paths import ROOT
from tests.test_layering import MAY_SEE


def public_classes(source: str) -> Iterator[str]:
    """The classes of a module, and those in the bodies of its classes, whose names have no leading underscore."""
    bodies = [ast.parse(source).body]
    while bodies:
        for node in bodies.pop():
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bodies.append(node.body)
                yield node.name


def repeated(sources: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Name of a class -> the files that define it, for names that more than one class has; from (file, source)."""
    files = defaultdict(list)
    for file, source in sources:
        for name in public_classes(source):
            files[name].append(file)
    return {name: sorted(found) for name, found in files.items() if len(found) > 1}


def test_no_two_public_classes_have_the_same_name() -> None:
    files = [path for room in MAY_SEE for path in sorted((ROOT / room).rglob("*.py"))]  # links are not followed
    assert len({path.resolve() for path in files}) == len(files) > 150
    sources = [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in files]
    assert repeated(sources) == {}


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([("a.py", "class Link: ..."), ("b.py", "class Link: ...")], {"Link": ["a.py", "b.py"]}),
        ([("a.py", "class Link: ...\nclass Link: ...")], {"Link": ["a.py", "a.py"]}),
        ([("a.py", "class Link: ..."), ("b.py", "class Outer:\n  class Link: ...")], {"Link": ["a.py", "b.py"]}),
        ([("a.py", "class _Link: ..."), ("b.py", "class _Link: ...")], {}),
        ([("a.py", "class Link: ..."), ("b.py", "from a import Link\nLinks = list[Link]")], {}),
    ],
)
def test_a_name_of_two_classes_is_found(sources: list[tuple[str, str]], found: dict[str, list[str]]) -> None:
    assert repeated(sources) == found
