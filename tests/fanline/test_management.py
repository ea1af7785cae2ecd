"""`fanline.management`: the way to the control process of the local server."""

import socket
from pathlib import Path

import pytest

from fanline.management import ManagementError, _read, _UnixConnection

pytestmark = pytest.mark.process


def test_a_call_waits_for_a_control_process_that_is_about_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "control.sock")

    def start(seconds: float) -> None:
        listener.bind(path)
        listener.listen()

    monkeypatch.setattr("fanline.management.time.sleep", start)
    with socket.socket(socket.AF_UNIX) as listener:
        connection = _UnixConnection(path, 60)
        connection.connect()
        connection.close()


def test_a_call_does_not_wait_longer_than_a_call_may_take(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _UnixConnection(str(tmp_path / "control.sock"), 0).connect()


def test_a_refusal_reads_as_sentences() -> None:
    problem = b'{"error": "not_found", "message": "there is no GET /nothing", "help": "See /docs."}'
    with pytest.raises(ManagementError, match=r"^there is no GET /nothing\. See /docs$"):
        _read(404, problem, "here")
