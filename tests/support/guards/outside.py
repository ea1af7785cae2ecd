"""The marker `process`: which tests leave their own process, and a guard that keeps the others inside it.

`make quick` runs the tests without the marker. A test gets it when its module, or a module of tests/ that it imports,
mentions a way out: starting a process, listening, or connecting. A module that sets the marker itself, on single tests
or parameters, is taken at its word. The guard holds both to the truth, in every run.
"""

import ast
import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT

MARKER = "process"

WAYS_OUT = frozenset(
    """
    subprocess Popen open_process run_process Child
    bind create_server open_listeners open_tcp_listeners serve_tcp serve_websocket
    create_connection open_tcp_stream open_websocket_url connect_websocket_url
    """.split()
)
"""Names that a module mentions if it starts a process, listens or connects. A missing one is found by the guard."""

STARTS = frozenset(("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"))
CONNECTS = frozenset(("socket.bind", "socket.connect"))
"""Python's audit events. A socket pair raises none: it is memory."""


class LeftTheProcessError(AssertionError):
    """A test without the marker started a process or used a socket."""


@functools.cache
def needs_marker(module: Path) -> bool:
    """Whether the module, or one of tests/ that it imports, mentions one of WAYS_OUT and does not set the marker."""
    source = module.read_text(encoding="utf-8")
    if f"mark.{MARKER}" in source:
        return False
    tree = ast.parse(source)
    own = any(name in WAYS_OUT for node in ast.walk(tree) for name in _names(node))
    return own or any(map(needs_marker, _imported_from_tests(tree)))


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
            yield name


def _imported_from_tests(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tests":
            folder = ROOT.joinpath(*(node.module or "").split("."))
            candidates = [folder.with_suffix(".py"), *(folder / f"{alias.name}.py" for alias in node.names)]
            yield from (file for file in candidates if file.exists())


class _Guard:
    """What the audit hook knows; audit hooks are never removed, so there is one and it is switched."""

    def __init__(self) -> None:
        self.attempts: list[str] | None = None
        """Events that were refused; None while the guard is off."""
        self.bystanders: set[int] = set()
        """Threads that earlier tests left behind."""

    def audit(self, event: str, _: tuple[object, ...]) -> None:
        if self.attempts is None or not (event in STARTS or self._is_connecting(event)):
            return
        self.attempts.append(event)
        raise LeftTheProcessError(_sentence(event))

    def _is_connecting(self, event: str) -> bool:
        return event in CONNECTS and threading.get_ident() not in self.bystanders


_guard = _Guard()
sys.addaudithook(_guard.audit)


@contextmanager
def kept_inside() -> Iterator[None]:
    """Processes and sockets are refused in this block, and the block fails even if it swallows the refusal."""
    main = threading.main_thread()
    _guard.bystanders = {thread.ident for thread in threading.enumerate() if thread.ident and thread is not main}
    attempts = _guard.attempts = []
    try:
        yield
    finally:
        _guard.attempts = None
    if attempts:
        raise LeftTheProcessError(_sentence(attempts[0]))


def _sentence(event: str) -> str:
    return f"a test without `pytest.mark.{MARKER}` starts no process and uses no socket, but this one did: {event}"
