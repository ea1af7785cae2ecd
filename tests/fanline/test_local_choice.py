"""Which of several servers is meant, and what is said where none is found."""

import os
from pathlib import Path

import pytest

from fanline.local import FollowedServer, NoServer, find_local, find_server, is_same_server, server_name
from fanline.protocol.serve_state import ServeState, encode_state


def write(directory: Path, port: int, *, started: float = 1.0, pid: int | None = None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    url = f"ws://127.0.0.1:{port}/ws"
    state = ServeState(pid=pid or os.getpid(), started=started, url=url, nats=f"nats://127.0.0.1:{port + 1}")
    (directory / f"serve-{port}.json").write_bytes(encode_state(state))


def port_of(state: ServeState) -> int:
    return int(state.url.partition("127.0.0.1:")[2].partition("/")[0])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ws://h:1/ws", "ws://h:1/ws"),
        ("wss://h/app/ws", "wss://h/app/ws"),
        ("http://h:1", "ws://h:1/ws"),
        ("https://h/", "wss://h/ws"),
        ("8080", "8080"),
    ],
)
def test_a_server_is_named_by_the_url_of_its_endpoint_or_pages_or_by_a_port(text: str, name: str) -> None:
    assert server_name(text) == name


NO_SERVERS = ["", "h:1", "ftp://h", "wsx://h:1/ws", "ws://", "ws://:80", "0", "70000", "-1", "٨٠"]
NO_PORTS = ["ws://h:99999/ws", "ws://h:port/ws", "ws://h:-1", "ws://h:0/ws", "http://[::1"]


@pytest.mark.parametrize("text", NO_SERVERS + NO_PORTS)
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a WebSocket URL"):
        server_name(text)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("8080", True),
        ("8081", False),
        ("ws://localhost:8080/ws", True),
        ("ws://0.0.0.0:8080/ws", True),
        ("ws://example.org:8080/ws", False),
        ("ws://127.0.0.1/ws", False),
    ],
)
def test_a_local_server_has_several_names(name: str, same: bool) -> None:
    assert is_same_server(name, "ws://127.0.0.1:8080/ws") is same


def test_a_url_without_a_port_is_that_of_the_scheme() -> None:
    assert is_same_server("ws://localhost/ws", "ws://127.0.0.1:80/ws")
    assert is_same_server("wss://localhost/ws", "wss://127.0.0.1:443/ws")


@pytest.mark.parametrize("name", ["1000", "ws://127.0.0.1:1000/ws", "http://localhost:1000"])
def test_fanline_url_names_one_of_several_servers(tmp_path: Path, name: str) -> None:
    write(tmp_path, 1000)
    write(tmp_path, 2000, started=3.0)
    environ = {"FANLINE_STATE_DIR": str(tmp_path)}
    assert port_of(find_server(environ)) == 2000
    assert port_of(find_server({**environ, "FANLINE_URL": name})) == 1000
    assert port_of(find_server({**environ, "FANLINE_URL": "2000"}, url="1000")) == 1000


def test_a_server_elsewhere_is_none_of_this_machine_and_that_is_said(tmp_path: Path) -> None:
    write(tmp_path, 1000)
    environ = {"FANLINE_STATE_DIR": str(tmp_path), "FANLINE_URL": "wss://example.org/ws"}
    with pytest.raises(NoServer, match=r"of yours has wss://example\.org/ws \(there is ws://127\.0\.0\.1:1000/ws\)"):
        find_server(environ)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("with_session", [True, False])
def test_a_server_is_found_whether_or_not_either_side_has_a_session(
    tmp_path: Path, with_session: bool, named: bool
) -> None:
    home, session = {"HOME": str(tmp_path / "home")}, {"XDG_RUNTIME_DIR": str(tmp_path / "run")}
    directory = tmp_path / ("home/.local/state/fanline" if with_session else "run/fanline")
    write(directory, 1000)
    environ = {**home, **session, **({"FANLINE_URL": "1000"} if named else {})}
    assert find_local(environ).directory == directory


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("what", ["directory", "file"])
def test_the_server_of_another_user_is_permission_denied(tmp_path: Path, what: str) -> None:
    write(tmp_path / "state", 1000)
    (tmp_path / "state" if what == "directory" else tmp_path / "state" / "serve-1000.json").chmod(0)
    with pytest.raises(NoServer, match=r"permission denied: .* belongs to"):
        find_server({"FANLINE_STATE_DIR": str(tmp_path / "state")})
    (tmp_path / "state").chmod(0o700)


def test_the_server_of_another_user_is_permission_denied_for_whoever_runs_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1000)

    def refuse(path: object) -> list[str]:
        raise PermissionError

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(NoServer, match=r"permission denied: .* belongs to"):
        find_server({"FANLINE_STATE_DIR": str(tmp_path)})


def test_a_program_stays_with_its_server_when_another_one_runs_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FANLINE_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("FANLINE_URL", raising=False)
    write(tmp_path, 1000)
    server = FollowedServer()
    assert port_of(server.find()) == 1000
    write(tmp_path, 2000, started=2.0)
    assert port_of(server.find()) == 1000
    (tmp_path / "serve-1000.json").unlink()  # it restarts
    with pytest.raises(NoServer, match="is another server"):
        server.find()
    write(tmp_path, 1000, started=3.0)
    assert port_of(server.find()) == 1000


def test_a_program_follows_its_server_to_another_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANLINE_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("FANLINE_URL", raising=False)
    write(tmp_path, 1000)
    server = FollowedServer()
    assert port_of(server.find()) == 1000
    (tmp_path / "serve-1000.json").unlink()
    write(tmp_path, 3000, started=1e12)
    assert port_of(server.find()) == 3000


def test_producers_and_viewers_are_told_what_they_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANLINE_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("FANLINE_URL", raising=False)
    with pytest.raises(NoServer, match="name one with --url or FANLINE_URL"):
        find_server()
    with pytest.raises(NoServer, match=r"start one, or set FANLINE_NATS$"):
        FollowedServer().find()
