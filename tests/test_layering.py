"""Imports point one way, and each room keeps out of what is not its business."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_SEE = {
    "protocol": {"protocol"},
    "engine": {"protocol", "engine"},
    "workers": {"protocol", "engine", "workers"},
    "fanline": {"protocol", "fanline"},
    "loadtest": {"protocol", "loadtest"},
}
# Sans-I/O: no loop, no socket, no clock, no chance; whoever calls brings them.
NOT_IN_PROTOCOL = frozenset(
    ("asyncio", "os", "random", "secrets", "select", "socket", "ssl", "subprocess", "threading", "time", "trio")
)
KNOW_ASYNCIO = ("engine/nats_bus.py", "fanline/_await.py")
ONLY = "only engine/nats_bus.py and fanline/_await.py know asyncio"
ASYNCIO = frozenset(("asyncio", "trio_asyncio"))


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and absolute module of every import, wherever it stands; a relative one is "." and its module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def complaint(path: str, module: str) -> str | None:
    """What is wrong with importing `module` in the file `path` (relative to the root), or None."""
    room, package = path.partition("/")[0], module.partition(".")[0]
    if module.startswith("."):
        return "relative import"
    if package in MAY_SEE and package not in MAY_SEE[room]:
        return f"{room} may not see {package}"
    if room == "protocol" and package in NOT_IN_PROTOCOL:
        return f"protocol does no I/O and has no clock: {package}"
    if package in ASYNCIO and path not in KNOW_ASYNCIO:
        return f"{ONLY}: {package}"
    return None


def complaints(root: Path) -> list[str]:
    """Every bad import below `root`, as "file:line: what"."""
    found = []
    for file in sorted(file for room in MAY_SEE for file in (root / room).rglob("*.py")):
        path = file.relative_to(root).as_posix()
        for line, module in imports(file.read_text(encoding="utf-8")):
            wrong = complaint(path, module)
            if wrong is not None:
                found.append(f"{path}:{line}: {wrong}")
    return found


def test_imports_point_one_way() -> None:
    assert complaints(ROOT) == []


def test_every_room_is_looked_at() -> None:
    assert all(any((ROOT / room).rglob("*.py")) for room in MAY_SEE)


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("protocol/x.py", "import engine", "protocol may not see engine"),
        ("protocol/deep/x.py", "from workers.child import Child", "protocol may not see workers"),
        ("engine/x.py", "import workers.main as main", "engine may not see workers"),
        ("fanline/x.py", "from engine import hub", "fanline may not see engine"),
        ("loadtest/x.py", "import json, fanline", "loadtest may not see fanline"),
        ("workers/x.py", "import loadtest", "workers may not see loadtest"),
        ("protocol/x.py", "import trio", "protocol does no I/O and has no clock: trio"),
        ("protocol/x.py", "def now():\n    from time import time", "protocol does no I/O and has no clock: time"),
        ("protocol/x.py", "import os.path", "protocol does no I/O and has no clock: os"),
        ("engine/x.py", "import asyncio", f"{ONLY}: asyncio"),
        ("engine/x.py", "from trio_asyncio import open_loop", f"{ONLY}: trio_asyncio"),
        ("engine/x.py", "from . import hub", "relative import"),
        ("engine/x.py", "if TYPE_CHECKING:\n    import workers", "engine may not see workers"),
    ],
)
def test_a_bad_import_is_found(tmp_path: Path, path: str, source: str, expected: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert complaints(tmp_path) == [f"{path}:{len(source.splitlines())}: {expected}"]


def test_good_imports_are_left_alone(tmp_path: Path) -> None:
    for path, source in {
        "engine/nats_bus.py": "import asyncio, trio_asyncio\nfrom protocol.errors import MessageError",
        "fanline/_await.py": "import asyncio, trio",
        "engine/x.py": "import socket, time, trio\nimport engine.hub",
        "workers/x.py": "import engine, protocol, workers",
        "fanline/x.py": "import protocol.envelope, trio_websocket",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(source)
    assert complaints(tmp_path) == []
