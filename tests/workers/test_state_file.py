"""The state file of a running server."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from fanline.protocol.serve_state import ServeState, decode_state, encode_state
from fanline.workers.errors import ServeError
from fanline.workers.state_file import published, running_server

STATE = ServeState(pid=1, started=2.0, url="ws://127.0.0.1:3/ws", nats="nats://127.0.0.1:4", nats_token="secret")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_exists_while_the_server_runs_and_is_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "state"
    with published(STATE, directory, 3) as path:
        assert path == directory / "serve-3.json"
        assert decode_state(path.read_bytes()) == STATE
        assert (mode(directory), mode(path)) == (0o700, 0o600)
    assert list(directory.iterdir()) == []


def test_a_file_left_by_a_killed_server_is_replaced(tmp_path: Path) -> None:
    old = tmp_path / "serve-3.json"
    old.write_text("old")
    old.chmod(0o644)
    with published(STATE, tmp_path, 3) as path:
        assert decode_state(path.read_bytes()) == STATE
        assert mode(path) == 0o600


def test_the_file_of_another_server_is_not_removed(tmp_path: Path) -> None:
    other = ServeState(pid=9, started=2.0, url="ws://127.0.0.2:3/ws", nats="nats://127.0.0.1:5")
    with published(STATE, tmp_path, 3) as path:
        path.write_bytes(encode_state(other))
    assert decode_state(path.read_bytes()) == other


def test_a_live_server_is_found_by_its_port_and_a_dead_one_is_not(tmp_path: Path) -> None:
    assert running_server(tmp_path, 3) is None
    own = msgspec.structs.replace(STATE, pid=os.getpid())
    with published(own, tmp_path, 3):
        assert running_server(tmp_path, 3) == own
        assert running_server(tmp_path, 4) is None
    with published(msgspec.structs.replace(STATE, pid=2**22 + 1), tmp_path, 3):  # beyond the largest pid of Linux
        assert running_server(tmp_path, 3) is None


def test_an_unusable_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServeError, match=r"serve-3\.json.*FANLINE_STATE_DIR"), published(STATE, tmp_path / "file", 3):
        pass
