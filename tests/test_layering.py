"""Imports point one way, and each room keeps out of what is not its business."""

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Room -> the rooms it may import from. `fanline` itself is the SDK: what stands in that folder and is no other room.
MAY_SEE = {
    "protocol": {"protocol"},
    "engine": {"protocol", "engine"},
    "workers": {"protocol", "engine", "workers"},
    "fanline": {"protocol", "fanline"},
    "loadtest": {"protocol", "loadtest"},
}
# The layers of the engine: each sees those before it. Of what stands in engine/ itself, all but the last two is below.
LAYERS = (
    "base",
    "bus",
    "cluster",
    "access",
    "hooks",
    "sending",
    "tasks",
    "channels",
    "presence",
    "notifications",
    "sessions",
    "connections",
    "management",
    "assembly",
    "server",
)
# Sans-I/O: no loop, no socket, no clock, no chance; whoever calls brings them.
NOT_IN_PROTOCOL = frozenset(
    ("asyncio", "os", "random", "secrets", "select", "socket", "ssl", "subprocess", "threading", "time", "trio")
)
EXCEPTIONS = {("protocol/nats/credentials.py", "ssl"), ("protocol/unix_socket.py", "os")}
"""What engine and SDK, which may not see each other, would otherwise write twice."""
KNOW_ASYNCIO = (
    "fanline/client/shells/",
    "fanline/producer/waiting.py",
    "fanline/publishing/websocket.py",
    "workers/handlers/",
)
ONLY = f"only {', '.join(KNOW_ASYNCIO)} know asyncio"
ASYNCIO = frozenset(("asyncio", "nats", "trio_asyncio"))


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Line and absolute module of every import, wherever it stands; a relative one is "." and its module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module in ("fanline", "fanline.engine"):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def room_of(module: str) -> str | None:
    """The room of a module of ours; None for a foreign one."""
    package, _, rest = module.partition(".")
    if package != "fanline":
        return None
    room = rest.partition(".")[0]
    return room if room in MAY_SEE else "fanline"


def layer_of(path: str) -> str:
    """The layer of a file or module of the engine, given as in `engine/bus/memory` or `engine/server`."""
    name = path.split("/")[1] if "/" in path else "base"
    return name if name in LAYERS else "base"


def complaint(path: str, module: str) -> str | None:
    """What is wrong with importing `module` in the file `path` (relative to the root), or None."""
    room, package = path.partition("/")[0], module.partition(".")[0]
    if module.startswith("."):
        return "relative import"
    if package in MAY_SEE and package != "fanline":
        return f"{package} is imported as fanline.{package}"
    seen = room_of(module)
    if seen is not None and seen not in MAY_SEE[room]:
        return f"{room} may not see {seen}"
    if room == "engine" and seen == "engine":
        mine, other = layer_of(path.removesuffix(".py")), layer_of(module.removeprefix("fanline.").replace(".", "/"))
        if LAYERS.index(other) > LAYERS.index(mine):
            return f"engine layer {mine} may not see {other}"
    if room == "protocol" and package in NOT_IN_PROTOCOL and (path, package) not in EXCEPTIONS:
        return f"protocol does no I/O and has no clock: {package}"
    if package in ASYNCIO and not path.startswith(KNOW_ASYNCIO):
        return f"{ONLY}: {package}"
    return None


def sources(root: Path) -> Iterator[Path]:
    """The Python files of every room, each once: rooms that `fanline` links to are read where they stand."""
    for room in MAY_SEE:
        for file in sorted((root / room).rglob("*.py")):
            if not any(parent.is_symlink() for parent in itertools.takewhile(lambda p: p != root, file.parents)):
                yield file


def complaints(root: Path) -> list[str]:
    """Every bad import below `root`, as "file:line: what"."""
    found = []
    for file in sources(root):
        path = file.relative_to(root).as_posix()
        for line, module in imports(file.read_text(encoding="utf-8")):
            wrong = complaint(path, module)
            if wrong is not None:
                found.append(f"{path}:{line}: {wrong}")
    return found


def test_imports_point_one_way() -> None:
    assert complaints(ROOT) == []


def test_every_room_and_every_layer_is_looked_at() -> None:
    paths = [file.relative_to(ROOT).as_posix() for file in sources(ROOT)]
    assert {path.partition("/")[0] for path in paths} == set(MAY_SEE)
    assert {layer_of(path.removesuffix(".py")) for path in paths if path.startswith("engine/")} == set(LAYERS)
    assert len(paths) == len({(ROOT / path).resolve() for path in paths})


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("protocol/x.py", "import fanline.engine", "protocol may not see engine"),
        ("protocol/x.py", "from fanline import engine", "protocol may not see engine"),
        ("protocol/deep/x.py", "from fanline.workers.child import Child", "protocol may not see workers"),
        ("protocol/x.py", "from fanline.client.message import Message", "protocol may not see fanline"),
        ("engine/x.py", "import fanline.workers.main as main", "engine may not see workers"),
        ("engine/x.py", "import engine.hub", "engine is imported as fanline.engine"),
        ("fanline/x.py", "from fanline.engine import hub", "fanline may not see engine"),
        ("loadtest/x.py", "import json, fanline", "loadtest may not see fanline"),
        ("workers/x.py", "import fanline.loadtest", "workers may not see loadtest"),
        ("engine/bus/x.py", "from fanline.engine.tasks.fold import Fold", "engine layer bus may not see tasks"),
        ("engine/bus/x.py", "from fanline.engine import tasks", "engine layer bus may not see tasks"),
        ("engine/clock.py", "from fanline.engine.bus.memory import X", "engine layer base may not see bus"),
        ("engine/sessions/x.py", "import fanline.engine.server", "engine layer sessions may not see server"),
        ("protocol/x.py", "import trio", "protocol does no I/O and has no clock: trio"),
        ("protocol/x.py", "def now():\n    from time import time", "protocol does no I/O and has no clock: time"),
        ("protocol/x.py", "import os.path", "protocol does no I/O and has no clock: os"),
        ("engine/x.py", "import asyncio", f"{ONLY}: asyncio"),
        ("engine/x.py", "from trio_asyncio import open_loop", f"{ONLY}: trio_asyncio"),
        ("engine/x.py", "from . import hub", "relative import"),
        ("engine/x.py", "if TYPE_CHECKING:\n    import fanline.workers", "engine may not see workers"),
    ],
)
def test_a_bad_import_is_found(tmp_path: Path, path: str, source: str, expected: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert complaints(tmp_path) == [f"{path}:{len(source.splitlines())}: {expected}"]


def test_good_imports_are_left_alone(tmp_path: Path) -> None:
    for path, source in {
        "engine/bus/memory.py": "import trio\nfrom fanline.protocol.errors import MessageError",
        "fanline/producer/waiting.py": "import asyncio, trio",
        "workers/handlers/main.py": "import asyncio, nats.aio.client",
        "engine/sending/x.py": "import socket, time, trio\nimport fanline.engine.bus.memory, fanline.engine.clock",
        "engine/server.py": "from fanline.engine.connections.connection import Connection",
        "workers/x.py": "import fanline.engine, fanline.protocol, fanline.workers",
        "fanline/x.py": "import fanline.protocol.envelope, trio_websocket",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
    assert complaints(tmp_path) == []
