"""The state file of a running `fanline serve`: how `fanline pub`, `sub` and the load users find it by themselves.

`fanline serve` writes `<directory>/serve-<port>.json`, mode 0600 since it holds the NATS token, and removes it at its
end. Whoever reads it must check that `pid` is alive: a killed server leaves its file behind.
"""

from collections.abc import Mapping
from pathlib import PurePath

import msgspec


class ServeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one server is reached from this machine."""

    pid: int
    """Process id of the supervisor."""
    started: float
    """Unix seconds; the newest live server wins."""
    url: str
    """WebSocket endpoint, as in ws://127.0.0.1:8080/ws."""
    nats: str
    """NATS URL without credentials, as in nats://127.0.0.1:4222."""
    nats_token: str = ""
    nats_user: str = ""
    nats_password: str = ""
    nats_creds: str = ""
    """Path of a creds file; "" for none."""


def state_directory(environ: Mapping[str, str]) -> PurePath:
    """$FANLINE_STATE_DIR, else fanline/ under $XDG_RUNTIME_DIR, else ~/.local/state/fanline ($HOME)."""
    if own := environ.get("FANLINE_STATE_DIR"):
        return PurePath(own)
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return PurePath(runtime, "fanline")
    return PurePath(environ.get("HOME", "/"), ".local", "state", "fanline")


def encode_state(state: ServeState) -> bytes:
    """JSON of a state file."""
    return msgspec.json.encode(state)


def decode_state(payload: bytes) -> ServeState:
    """Inverse of `encode_state`; raises ValueError saying what is wrong."""
    return msgspec.json.decode(payload, type=ServeState)
