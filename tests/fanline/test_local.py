"""Finding the server that runs on this machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fanline.local import NoServer, find_server, is_alive, nats_address
from fanline.protocol.serve_state import ServeState, encode_state


def _write(directory: Path, port: int, *, pid: int | None = None, started: float = 1.0, **fields: Any) -> None:
    state = ServeState(
        pid=os.getpid() if pid is None else pid,
        started=started,
        url=f"ws://127.0.0.1:{port}/ws",
        nats=f"nats://127.0.0.1:{port + 1}",
        **fields,
    )
    (directory / f"serve-{port}.json").write_bytes(encode_state(state))


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_newest_live_server_wins(tmp_path: Path) -> None:
    _write(tmp_path, 1000, started=1.0)
    _write(tmp_path, 2000, started=3.0)
    _write(tmp_path, 3000, started=2.0)
    _write(tmp_path, 4000, started=9.0, pid=_dead_pid())
    assert find_server({"FANLINE_STATE_DIR": str(tmp_path)}).url == "ws://127.0.0.1:2000/ws"


def test_the_server_of_a_given_process_is_found_among_newer_ones(tmp_path: Path) -> None:
    _write(tmp_path, 1000, pid=os.getppid())
    _write(tmp_path, 2000, started=3.0)
    assert find_server({"FANLINE_STATE_DIR": str(tmp_path)}, pid=os.getppid()).url == "ws://127.0.0.1:1000/ws"


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": 1}', b"\xff\xfe"])
def test_a_broken_state_file_does_not_hide_another(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "serve-1.json").write_bytes(content)
    _write(tmp_path, 2000)
    assert find_server({"FANLINE_STATE_DIR": str(tmp_path)}).url == "ws://127.0.0.1:2000/ws"


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_server_the_error_says_where_it_looked_and_what_to_do(tmp_path: Path, exists: bool) -> None:
    directory = tmp_path if exists else tmp_path / "missing"
    with pytest.raises(NoServer, match=f"looked in {directory}.*--url"):
        find_server({"FANLINE_STATE_DIR": str(directory)})


def test_the_nats_address_carries_the_servers_credentials(tmp_path: Path) -> None:
    _write(tmp_path, 2000, nats_token="s3cret")
    address = nats_address(find_server({"FANLINE_STATE_DIR": str(tmp_path)}))
    assert (address.host, address.port, address.token) == ("127.0.0.1", 2001, "s3cret")


def test_a_server_whose_nats_requires_files_has_no_url_that_says_all(tmp_path: Path) -> None:
    _write(tmp_path, 2000, nats_creds="/somewhere.creds")
    with pytest.raises(NoServer, match="set FANLINE_NATS, and FANLINE_NATS_CREDS"):
        nats_address(find_server({"FANLINE_STATE_DIR": str(tmp_path)}))


def test_a_process_is_alive_until_it_has_ended() -> None:
    assert is_alive(os.getpid())
    assert is_alive(1)  # another user's
    assert not is_alive(_dead_pid())
    assert not is_alive(2**62)
    assert not is_alive(0)
