"""docs/explanation/architecture.md is what the tree and the tables say."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from fanline.engine.channels.durable.life import DURABLE
from fanline.engine.channels.subscription import SUBSCRIPTION
from fanline.engine.sending.life import LIFE
from tests.support.paths import ROOT
from tests.test_layering import LAYERS, MAY_SEE

PATH = ROOT / "docs" / "explanation" / "architecture.md"
PAGE = PATH.read_text(encoding="utf-8")
NAMED = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]+\.\w+)?)`")
TABLES: tuple[Mapping[tuple[Any, Any], Enum], ...] = (SUBSCRIPTION, DURABLE, LIFE)


def diagram(table: Mapping[tuple[Any, Any], Enum]) -> str:
    """A table as a mermaid state diagram; what changes nothing is left out."""
    states: list[Any] = list(dict.fromkeys(state for state, _ in table))
    lines = ["stateDiagram-v2", f"    [*] --> {states[0].name.lower()}"]
    edges: dict[tuple[Any, Any], list[str]] = {}
    for (source, event), target in table.items():
        if source is not target:
            edges.setdefault((source, target), []).append(event.name.lower())
    lines += [f"    {a.name.lower()} --> {b.name.lower()}: {', '.join(events)}" for (a, b), events in edges.items()]
    return "\n".join(lines)


def test_every_file_and_folder_it_names_is_there() -> None:
    named = set(NAMED.findall(PAGE))
    assert len(named) > 40
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_it_has_every_room_and_every_layer_in_the_order_of_imports() -> None:
    rows = re.findall(r"^\| `([\w/.]+)` \|", PAGE, re.MULTILINE)
    assert [row.rstrip("/") for row in rows if row.rstrip("/") in MAY_SEE] == list(MAY_SEE)
    layers = [
        row.removeprefix("engine/").removesuffix(".py").rstrip("/")
        for row in rows
        if row.startswith("engine/") and row != "engine/"
    ]
    assert layers == [layer for layer in LAYERS if layer != "base"]


def test_every_folder_of_a_room_is_described() -> None:
    rooms = ("protocol", "engine", "workers", "fanline")
    inside = [each for room in rooms for each in (ROOT / room).iterdir() if each.is_dir() and not each.is_symlink()]
    folders = {f"{folder.relative_to(ROOT)}/" for folder in inside if folder.name != "__pycache__"}
    assert folders - set(NAMED.findall(PAGE)) == set()


def test_its_diagrams_are_drawn_from_the_tables() -> None:
    assert re.findall(r"^```mermaid\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL) == [diagram(t) for t in TABLES]


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if line.startswith("| ") and "`_" in line])
def test_private_names_it_sends_a_reader_to_are_there(line: str) -> None:
    (name,) = re.findall(r"`(_\w+)`", line)
    (path,) = re.findall(r"`([\w/]+\.py)`", line)
    assert re.search(rf"^{name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
