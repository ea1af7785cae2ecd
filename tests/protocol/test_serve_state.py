"""The state file of a running server."""

import pytest
from msgspec.structs import replace

from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.serve_state import (
    ServeState,
    as_engine,
    decode_state,
    encode_state,
    nats_login,
    nats_options,
    newest_server,
    state_directory,
)

STATE = ServeState(pid=7, started=1.5, url="ws://127.0.0.1:8080/ws", nats="nats://127.0.0.1:4222", nats_token="t")


def test_decode_undoes_encode() -> None:
    assert decode_state(encode_state(STATE)) == STATE


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"pid":"x"}', encode_state(STATE)[:-1] + b',"more":1}'])
def test_what_is_no_state_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_state(payload)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"FANLINE_STATE_DIR": "/s", "XDG_RUNTIME_DIR": "/run", "HOME": "/h"}, "/s"),
        ({"XDG_RUNTIME_DIR": "/run", "HOME": "/h"}, "/run/fanline"),
        ({"HOME": "/h"}, "/h/.local/state/fanline"),
        ({}, "/.local/state/fanline"),
    ],
)
def test_the_first_directory_that_is_set_wins(environ: dict[str, str], expected: str) -> None:
    assert str(state_directory(environ)) == expected


def _file(pid: int, started: float) -> bytes:
    return encode_state(replace(STATE, pid=pid, started=started))


FILES = [b"", b'{"pid": 1}', _file(1, 1.0), _file(2, 3.0), _file(3, 2.0), b"\xff\xfe"]


@pytest.mark.parametrize(
    ("alive", "pid", "found"),
    [({1, 2, 3}, None, 2), ({1, 3}, None, 3), ({1, 2, 3}, 1, 1), ({2, 3}, 1, None), (set(), None, None)],
)
def test_the_newest_server_whose_process_lives_is_found(alive: set[int], pid: int | None, found: int | None) -> None:
    server = newest_server(FILES, alive.__contains__, pid=pid)
    assert (server and server.pid) == found


def test_the_state_says_how_to_reach_nats_files_included() -> None:
    state = replace(STATE, nats="tls://a,tls://b", nats_creds="/a.creds", nats_tls_ca="/ca.pem")
    assert nats_options(state) == NatsOptions(("tls://a", "tls://b"), token="t", creds="/a.creds", tls_ca="/ca.pem")


def test_the_login_is_what_the_state_says_unless_nats_requires_files() -> None:
    address = nats_login(replace(STATE, nats_user="ann", nats_password="pw"))
    assert address is not None
    assert (address.host, address.port) == ("127.0.0.1", 4222)
    assert (address.user, address.password, address.token) == ("ann", "pw", "t")
    for file in ("nats_creds", "nats_nkey", "nats_tls_ca", "nats_tls_cert"):
        assert nats_login(replace(STATE, **{file: "/a"})) is None


def test_the_engine_has_a_login_of_its_own_where_producers_have_theirs() -> None:
    assert as_engine(STATE) == STATE
    embedded = replace(
        STATE, nats_token="", nats_user="producer", nats_password="p", engine_user="e", engine_password="q"
    )
    assert nats_options(embedded).user == "producer"
    assert (nats_options(as_engine(embedded)).user, nats_options(as_engine(embedded)).password) == ("e", "q")
