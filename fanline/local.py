"""Which `fanline serve` runs on this machine: the newest whose process is alive."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from fanline.errors import FanlineError
from fanline.protocol.nats.client_protocol import NatsAddress, parse_url
from fanline.protocol.serve_state import ServeState, decode_state, state_directory


class NoServer(FanlineError):  # noqa: N818  # reads as what was found
    """There is no local server to use; str() says where it was looked for."""


def find_server(environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> ServeState:
    """The newest running local server, or the one of that process. Raises NoServer."""
    directory = Path(state_directory(environ))
    running = [state for state in _states(directory) if is_alive(state.pid) and pid in (None, state.pid)]
    if not running:
        raise NoServer(
            f"no running `fanline serve` found (looked in {directory}); start one or pass --url ws://HOST:PORT/ws"
        )
    return max(running, key=lambda state: state.started)


def nats_address(state: ServeState) -> NatsAddress:
    """Where and as whom to publish to that server's NATS. Raises NoServer if that takes more than a password."""
    if state.nats_creds:
        raise NoServer(f"the NATS of {state.url} wants a creds file, which this command cannot use; pass --url")
    return parse_url(state.nats)._replace(user=state.nats_user, password=state.nats_password, token=state.nats_token)


def is_alive(pid: int) -> bool:
    """Is there such a process? One that belongs to somebody else counts."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0


def _states(directory: Path) -> Iterator[ServeState]:
    for path in directory.glob("serve-*.json"):
        try:
            yield decode_state(path.read_bytes())
        except (OSError, ValueError):
            continue  # gone meanwhile, not ours, or of another version: no server that we could use
