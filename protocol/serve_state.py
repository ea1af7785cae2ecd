"""The state file of a running `fanline serve`, through which commands, producers and load users find it.

`fanline serve` writes `<directory>/serve-<port>.json` with mode 0600, since the file holds passwords for NATS, and
removes it when it ends. A server that was killed leaves its file behind, so a file counts only while its `pid` is
alive.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import PurePath

import msgspec

from fanline.protocol.nats.addresses import NatsAddress, parse_url
from fanline.protocol.nats.options import NatsOptions, split_urls

STATE_FILES = "serve-*.json"
"""Pattern of the names in the state directory."""


class ServeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach one server from this machine."""

    pid: int
    """Process ID of the supervisor."""
    started: float
    """Unix seconds; the newest live server wins."""
    url: str
    """WebSocket endpoint, as in ws://127.0.0.1:8080/ws."""
    nats: str
    """NATS URLs without credentials, as in nats://127.0.0.1:4222, separated by commas."""
    nats_token: str = ""
    """This and what follows is how producers log in; the engine, too, unless it has a user of its own."""
    nats_user: str = ""
    nats_password: str = ""
    nats_creds: str = ""
    """Path of a creds file; "" if there is none. This and the other paths are absolute."""
    nats_nkey: str = ""
    """Path of a file with the seed of an nkey."""
    nats_tls_ca: str = ""
    """Path of the certificate authority to trust, PEM."""
    nats_tls_cert: str = ""
    """Path of the client certificate, PEM."""
    nats_tls_key: str = ""
    engine_user: str = ""
    """Of the embedded nats-server: the engine's own user, which may do everything."""
    engine_password: str = ""
    asks: tuple[str, ...] = ()
    """The subjects on which it asks responders of the application's own."""
    control: bool = True
    """Whether it has a control process."""
    owner: int = 0
    """Process ID of the program with which it ends; 0: it ends by itself."""
    token_secret: str = ""
    """The secret with which tokens for this server may be signed; "" if it has none."""


def state_directory(environ: Mapping[str, str]) -> PurePath:
    """Where a server writes: $FANLINE_STATE_DIR, else fanline/ in $XDG_RUNTIME_DIR, else .local/state/fanline/ in
    $HOME.
    """
    return state_directories(environ, 0)[0]


def state_directories(environ: Mapping[str, str], user_id: int) -> list[PurePath]:
    """Where to look for servers. A login session sets XDG_RUNTIME_DIR, cron and `su` do not: so wherever the server of
    this user has been started, its file is found.
    """
    if own := environ.get("FANLINE_STATE_DIR"):
        return [PurePath(own)]
    runtime = environ.get("XDG_RUNTIME_DIR")
    home = PurePath(environ.get("HOME", "/"), ".local", "state", "fanline")
    session = PurePath("/run/user", str(user_id), "fanline")
    return list(dict.fromkeys([*([PurePath(runtime, "fanline")] if runtime else []), home, session]))


def state_file_name(port: int) -> str:
    """Name of the state file of the server on a port."""
    return f"serve-{port}.json"


def control_socket_name(port: int) -> str:
    """Name of the socket of that server's control process, in the same directory."""
    return f"control-{port}.sock"


def encode_state(state: ServeState) -> bytes:
    """The content of a state file, JSON."""
    return msgspec.json.encode(state)


def decode_state(payload: bytes) -> ServeState:
    """The inverse of `encode_state`. Raises ValueError, which says what is wrong."""
    return msgspec.json.decode(payload, type=ServeState)


def newest_server(
    files: Iterable[bytes], is_alive: Callable[[int], bool], *, pid: int | None = None
) -> ServeState | None:
    """The server that started last, among those whose process is alive; with `pid`, only the server of that process.

    `files` are the contents of state files. One that cannot be read as such does not count: it was written by another
    version of Fanline, or by another program.
    """
    states = [state for state in _readable(files) if pid in (None, state.pid) and is_alive(state.pid)]
    return max(states, key=lambda state: state.started, default=None)


def as_engine(state: ServeState) -> ServeState:
    """The same server, with the engine's login to NATS where producers have their own."""
    if not state.engine_user:
        return state
    return msgspec.structs.replace(state, nats_user=state.engine_user, nats_password=state.engine_password)


def nats_options(state: ServeState) -> NatsOptions:
    """How producers reach the server's NATS."""
    return NatsOptions(
        servers=split_urls(state.nats),
        user=state.nats_user,
        password=state.nats_password,
        token=state.nats_token,
        creds=state.nats_creds,
        nkey=state.nats_nkey,
        tls_ca=state.nats_tls_ca,
        tls_cert=state.nats_tls_cert,
        tls_key=state.nats_tls_key,
    )


def nats_login(state: ServeState) -> NatsAddress | None:
    """The address of the server's NATS, the first of several, with producers' credentials; None if files are needed.

    Raises NatsError if the NATS URL is malformed.
    """
    if state.nats_creds or state.nats_nkey or state.nats_tls_ca or state.nats_tls_cert:
        return None
    address = parse_url(split_urls(state.nats)[0])
    return address._replace(user=state.nats_user, password=state.nats_password, token=state.nats_token)


def _readable(files: Iterable[bytes]) -> Iterable[ServeState]:
    for content in files:
        with suppress(ValueError):
            yield decode_state(content)
