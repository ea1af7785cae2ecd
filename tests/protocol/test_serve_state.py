"""The state file of a running server."""

import pytest

from fanline.protocol.serve_state import ServeState, decode_state, encode_state, state_directory

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
