"""Which server is loaded: the one that was named, else a `fanline serve` of this machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fanline.protocol.nats.client_protocol import NatsAddress, NatsError, parse_url
from fanline.protocol.serve_state import ServeState, decode_state, state_directory


class TargetError(Exception):
    """There is nothing to load; str() says what to do."""


class Target(NamedTuple):
    """A server under load: its WebSocket endpoint and its NATS."""

    url: str
    nats: NatsAddress


def find_target(url: str, nats: str) -> Target:
    """The target of a WebSocket URL and a NATS URL; "" stands for that of the newest running `fanline serve`."""
    try:
        if url and nats:
            return Target(url, parse_url(nats))
        state = _newest_state()
        return Target(url or state.url, parse_url(nats) if nats else _address(state))
    except NatsError as error:
        raise TargetError(str(error)) from None


def _address(state: ServeState) -> NatsAddress:
    if state.nats_creds:
        raise TargetError(
            "this server's NATS wants a creds file, which the load users do not read: set FANLINE_LOAD_NATS"
        )
    return parse_url(state.nats)._replace(user=state.nats_user, password=state.nats_password, token=state.nats_token)


def _newest_state() -> ServeState:
    states = sorted(_live_states(), key=lambda state: state.started)
    if not states:
        raise TargetError(
            "no running server found: start one with `fanline serve`, or set FANLINE_LOAD_URL and FANLINE_LOAD_NATS"
        )
    return states[-1]


def _live_states() -> Iterator[ServeState]:
    for path in Path(state_directory(os.environ)).glob("serve-*.json"):
        try:
            state = decode_state(path.read_bytes())
            os.kill(state.pid, 0)
        except (OSError, ValueError):  # half-removed, of another version, or left behind by a server that was killed
            continue
        yield state
