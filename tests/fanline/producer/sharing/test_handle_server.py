"""Where a task hears its handles."""

import errno
import itertools
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fanline.producer.sharing import server as module
from fanline.producer.sharing.server import HandleServer

pytestmark = pytest.mark.process


def test_with_too_many_open_files_it_rests_and_then_hears_whoever_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    accept = socket.socket.accept

    def full_at_first(listener: socket.socket) -> tuple[socket.socket, Any]:
        tried.append(time.monotonic())
        if len(tried) <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", full_at_first)
    heard, said = threading.Event(), list[bytes]()

    def take(line: bytes) -> None:
        said.append(line)
        heard.set()

    server = HandleServer(take)
    with socket.socket(socket.AF_UNIX) as handle:
        handle.connect(server.address)
        handle.sendall(b"hello\n")
        assert heard.wait(30)
    server.close()
    assert said == [b"hello"]
    assert min(later - before for before, later in itertools.pairwise(tried)) >= module._FULL_SECONDS / 2
    assert not Path(server.address).parent.exists()
