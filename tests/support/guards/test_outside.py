"""The marker `process` and its guard."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.guards.outside import LeftTheProcessError, kept_inside, needs_marker
from tests.support.paths import ROOT

pytestmark = pytest.mark.process  # so that the guard is off around the tests of the guard

NOWHERE = ("127.0.0.1", 1)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


@pytest.mark.parametrize(
    ("event", "leave"),
    [
        ("subprocess.Popen", lambda _: subprocess.run([sys.executable, "-c", ""], check=True)),
        ("os.posix_spawn", lambda _: os.posix_spawn("/bin/true", ["true"], {})),
        ("socket.bind", lambda sock: sock.bind(("127.0.0.1", 0))),
        ("socket.connect", lambda sock: sock.connect(NOWHERE)),
    ],
)
def test_processes_and_sockets_are_refused(
    event: str, leave: Callable[[socket.socket], object], sock: socket.socket
) -> None:
    with pytest.raises(LeftTheProcessError, match=rf"pytest\.mark\.process.*: {event}$"), kept_inside():
        leave(sock)


def test_a_refusal_that_is_swallowed_fails_all_the_same(sock: socket.socket) -> None:
    with pytest.raises(LeftTheProcessError), kept_inside(), suppress(LeftTheProcessError):
        sock.connect(NOWHERE)


def test_a_socket_pair_is_memory() -> None:
    with kept_inside():
        one, other = socket.socketpair()
        with one, other:
            one.sendall(b"x")
            assert other.recv(1) == b"x"


def test_the_guard_is_off_after_its_block(sock: socket.socket) -> None:
    with kept_inside():
        pass
    sock.bind(("127.0.0.1", 0))


@pytest.mark.parametrize("inside", [False, True])
def test_a_thread_of_an_earlier_test_may_go_on_and_one_of_this_test_may_not(inside: bool, sock: socket.socket) -> None:
    go, refused = threading.Event(), threading.Event()

    def connect() -> None:
        go.wait(10)
        try:
            sock.connect_ex(NOWHERE)
        except LeftTheProcessError:
            refused.set()

    thread = threading.Thread(target=connect)
    if not inside:
        thread.start()
    with suppress(LeftTheProcessError), kept_inside():
        if inside:
            thread.start()
        go.set()
        thread.join(10)
    assert refused.is_set() is inside


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import subprocess", True),
        ("import trio\nasync def test(): await trio.open_tcp_stream('h', 1)", True),
        ("from tests.support.servers.serve import running_serve", True),
        ("from tests.support.servers import serve", True),
        ("import socket\nsocket.socketpair()", False),
        ("from tests.support.paths import ROOT", False),
        ("text = 'subprocess'", False),
        ("import subprocess, pytest\n@pytest.mark.process\ndef test(): ...", False),
    ],
)
def test_a_module_needs_the_marker_if_it_or_a_helper_mentions_a_way_out(
    tmp_path: Path, source: str, found: bool
) -> None:
    module = tmp_path / "test_x.py"
    module.write_text(source)
    assert needs_marker(module) is found


def test_all_tests_of_real_processes_are_marked() -> None:
    integration = sorted((ROOT / "tests" / "integration").rglob("test_*.py"))
    assert [module.name for module in integration if not (needs_marker(module) or _marks_all_its_tests(module))] == []


def _marks_all_its_tests(module: Path) -> bool:
    return "\npytestmark = pytest.mark.process\n" in module.read_text(encoding="utf-8")
