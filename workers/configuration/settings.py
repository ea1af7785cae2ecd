"""The settings of `fanline serve`: defaults < fanline.toml < FANLINE_* environment < flags, checked once at start.

Every key is a field of `Settings`, or `TABLE.KEY` for a field of one of its tables: `engine.heartbeat` stands in the
table `[engine]` of the file, and is FANLINE_ENGINE_HEARTBEAT in the environment.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fanline.engine.access.settings import AccessSettings, AuthMode, HandlerSettings, TokenSettings
from fanline.engine.hooks.settings import HookSettings, Webhook
from fanline.engine.settings import EngineSettings
from fanline.protocol.websocket.origins import is_loopback_host
from fanline.workers.configuration.access import check_access, read_roles
from fanline.workers.configuration.hooks import check_hooks, read_webhooks
from fanline.workers.configuration.namespaces import read_namespaces
from fanline.workers.configuration.routes import check_routes, read_routes
from fanline.workers.configuration.wording import describe_type, field_types, is_list, suggest
from fanline.workers.errors import SettingsError

CONFIG_NAME = "fanline.toml"
EMBEDDED = "embedded"
ENV_PREFIX = "FANLINE_"
OTHER_VARIABLES = frozenset(
    {"FANLINE_STATE_DIR", "FANLINE_LOAD_URL", "FANLINE_LOAD_NATS", "FANLINE_TOKEN", "FANLINE_API_KEY"}
)
"""Documented variables that are not settings."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of one server. Paths may begin with ~/; others are relative to the working directory."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    """Address to listen on; in development mode loopback only."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """TCP port; 0 takes any free one."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 2
    """Worker processes; about one per core."""
    auth: AuthMode = AuthMode.DEVELOPMENT
    """Who gets in."""
    control: bool = True
    """Whether there is a control process: the management API and the metrics."""
    control_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """A port on which the control process answers by itself, besides the port of the workers; 0: none."""
    nats: Annotated[str, Meta(min_length=1)] = EMBEDDED
    """"embedded", or the URLs of a running NATS, separated by commas, without credentials."""
    nats_user: str = ""
    nats_password: str = ""
    nats_token: str = ""
    nats_creds: str = ""
    """Path of a creds file (JWT and seed)."""
    nats_nkey: str = ""
    """Path of a file with the seed of an nkey."""
    nats_tls_ca: str = ""
    """Path of the certificate authority to trust, PEM."""
    nats_tls_cert: str = ""
    """Path of the client certificate for NATS, PEM; needs nats_tls_key."""
    nats_tls_key: str = ""
    data_dir: Annotated[str, Meta(min_length=1)]
    """Where the embedded nats-server keeps its store, log and configuration."""
    store_bytes: Annotated[int, Meta(ge=0)] = 0
    """The most that the embedded nats-server stores on disk; 0: half of what its disk has room for."""
    sync_interval: Annotated[float, Meta(ge=0, le=3600)] = 1.0
    """Seconds after which the embedded nats-server has what it stores written to the disk itself, so that it survives a
    loss of power; 0: before each acknowledgement.
    """
    drain_timeout: Annotated[float, Meta(ge=0, le=3600)] = 3.0
    """Seconds that clients have to leave when the server stops; then they are cut off."""
    hang_timeout: Annotated[float, Meta(ge=2, le=86_400)] = 15.0
    """Seconds without a sign of life from a worker, the process of handlers or the control process, after which it is
    killed and replaced.
    """
    engine: EngineSettings = EngineSettings()
    tokens: TokenSettings = TokenSettings()
    access: AccessSettings = AccessSettings()
    handlers: HandlerSettings = HandlerSettings()
    hooks: HookSettings = HookSettings()
    webhooks: tuple[Webhook, ...] = ()

    @property
    def embedded(self) -> bool:
        return self.nats == EMBEDDED

    @property
    def nats_urls(self) -> tuple[str, ...]:
        return tuple(url.strip() for url in self.nats.split(","))


_PATHS = (
    *("data_dir", "nats_creds", "nats_nkey", "nats_tls_ca", "nats_tls_cert", "nats_tls_key"),
    *("engine.ssl_certfile", "engine.ssl_keyfile", "engine.audit_log", "tokens.public_key"),
)
_TABLES: Mapping[str, type[msgspec.Struct]] = {
    "engine": EngineSettings,
    "tokens": TokenSettings,
    "access": AccessSettings,
    "handlers": HandlerSettings,
    "hooks": HookSettings,
}
_SECRETS = frozenset(  # a URL may hold a password
    ("nats_password", "nats_token", "nats", "tokens.secret", "access.authenticator")
)


_MODES = 'set auth to "token", or to "open" if that is what you want'


class _Given(NamedTuple):
    """A value and its source: "--port", "FANLINE_PORT" or "fanline.toml"."""

    value: object
    source: str
    typed: bool = False
    """Whether the source has types of its own, as TOML does; environment and flags are text."""


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], toml: tuple[str, str] | None = None
) -> Settings:
    """Merge and check all sources, without I/O. `flags`: key -> value or None if not given. `toml`: (path, text).

    Raises SettingsError naming the key, its source and what is accepted.
    """
    given = {
        "data_dir": _Given(_default_data_dir(environ), "default"),
        **dict(_from_toml(*toml) if toml else ()),
        **dict(_from_environ(environ)),
        **{key: _Given(value, _flag(key)) for key, value in flags.items() if value is not None},
    }
    values = {key: _check(key, item) if key in _TYPES else item.value for key, item in given.items()}
    values |= {key: _expand_home(values[key], environ) for key in _PATHS if key in values}
    tables = {table: _pop_table(values, f"{table}.") for table in _TABLES}
    settings = msgspec.convert({**values, **tables}, Settings)
    _check_together(settings, given)
    return settings


_TYPES = field_types(Settings)
for _name, _struct in _TABLES.items():
    _TYPES |= field_types(_struct, f"{_name}.")
for _table in (
    *_TABLES,
    "engine.namespaces",
    "engine.routes",
    "access.roles",
    "webhooks",
):  # tables, which are read in their own way
    del _TYPES[_table]


def _pop_table(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): values.pop(key) for key in [*values] if key.startswith(prefix)}


def _from_toml(path: str, text: str) -> Iterator[tuple[str, _Given]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    if "namespaces" in table:
        yield "engine.namespaces", _Given(read_namespaces(table.pop("namespaces"), path), path, typed=True)
    if "routes" in table:
        yield "engine.routes", _Given(read_routes(table.pop("routes"), path), path, typed=True)
    if "webhooks" in table:
        yield "webhooks", _Given(read_webhooks(table.pop("webhooks"), path), path, typed=True)
    for name in _TABLES:
        inner = table.pop(name, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"bad value for {name} in {path}: expected a table, [{name}]")
        table |= {f"{name}.{key}": value for key, value in inner.items()}
    if "access.roles" in table:
        yield "access.roles", _Given(read_roles(table.pop("access.roles"), path), path, typed=True)
    for key, value in table.items():
        if key not in _TYPES:
            raise SettingsError(f"unknown setting {key} in {path}; {_where_it_belongs(key)}")
        yield key, _Given(value, path, typed=True)


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    names = {_variable(key): key for key in _TYPES}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name in OTHER_VARIABLES:
            continue
        if name not in names:
            moved = [
                found
                for table in _TABLES
                if (found := f"{ENV_PREFIX}{table.upper()}_{name[len(ENV_PREFIX) :]}") in names
            ]
            hint = f"did you mean {moved[0]}?" if moved else suggest(name, names, ENV_PREFIX)
            raise SettingsError(f"unknown setting {name}; {hint}")
        if not value.isprintable() and any("\ud800" <= character <= "\udfff" for character in value):
            raise SettingsError(f"bad value for {name}: it is not UTF-8")
        yield names[name], _Given(value, name)


def _variable(key: str) -> str:
    return ENV_PREFIX + key.replace(".", "_").upper()


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _where_it_belongs(key: str) -> str:
    """What to do about an unknown key of the file: a key of another table is misplaced, not misspelt."""
    for table in _TABLES:
        if f"{table}.{key.rpartition('.')[2]}" in _TYPES:
            return f"{key.rpartition('.')[2]} belongs in the table [{table}]"
    if (bare := key.rpartition(".")[2]) in _TYPES:
        return f"{bare} belongs above all tables"
    return suggest(key, (*_TYPES, *_TABLES, "namespaces", "routes", "webhooks"))


def _check(key: str, given: _Given) -> object:
    """The value in the type of its setting. Text holds a list with commas."""
    value = given.value
    if is_list(_TYPES[key]) and not given.typed:
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        return msgspec.convert(value, _TYPES[key], strict=given.typed)
    except msgspec.ValidationError:
        expected = describe_type(_TYPES[key])
        raise SettingsError(f"bad value for {key} ({_shown(key, given)}): expected {expected}") from None


def _shown(key: str, given: _Given) -> str:
    """The value, unless it is a secret, and its source."""
    return given.source if key in _SECRETS else f"{given.value!r} from {given.source}"


def _check_together(settings: Settings, given: Mapping[str, _Given]) -> None:
    """The rules between settings, and those that a type cannot express."""
    check_access(settings.tokens, settings.access)
    check_hooks(settings.hooks)
    _check_host(settings, given)
    identified = settings.tokens.given or settings.access.authenticator
    if settings.auth is AuthMode.TOKEN and not identified and not settings.embedded:
        raise SettingsError(
            f"{_source('auth', given)} needs something to verify tokens with that all servers share: set "
            "tokens.secret, tokens.public_key or tokens.jwks_url, or access.authenticator"
        )
    if settings.embedded:
        _check_no_external_nats(given)
    else:
        for url in settings.nats_urls:
            _check_nats_url(url, _source("nats", given))
    _check_pair("nats_tls_cert", settings.nats_tls_cert, "nats_tls_key", settings.nats_tls_key)
    engine = settings.engine
    if settings.access.authenticator and settings.handlers.timeout >= engine.handshake_timeout:
        raise SettingsError("handlers.timeout must be shorter than engine.handshake_timeout: it is a part of it")
    _check_pair("engine.ssl_certfile", engine.ssl_certfile, "engine.ssl_keyfile", engine.ssl_keyfile)
    if engine.proxy_protocol and not engine.trusted_proxies:
        raise SettingsError("engine.proxy_protocol needs engine.trusted_proxies: only their headers are read")
    if engine.idle_timeout <= engine.heartbeat:
        raise SettingsError("engine.idle_timeout must be longer than engine.heartbeat, or live clients are closed")
    check_routes(engine.routes, engine.heartbeat)


def _source(key: str, given: Mapping[str, _Given]) -> str:
    return f"{key} ({given[key].source})" if key in given else key


def _check_host(settings: Settings, given: Mapping[str, _Given]) -> None:
    if settings.auth is not AuthMode.DEVELOPMENT:
        return
    if not is_loopback_host(settings.host):
        raise SettingsError(
            f"{_source('host', given)}: {settings.host} is not loopback, and in development mode everybody who "
            f"reaches the port may do everything; {_MODES}"
        )
    if settings.engine.hosts:
        raise SettingsError(
            f"{_source('engine.hosts', given)} opens the server to clients of other machines, through a proxy, and in "
            f"development mode they may all do everything; {_MODES}"
        )


def _check_no_external_nats(given: Mapping[str, _Given]) -> None:
    for key, item in given.items():
        if key.startswith("nats_") and item.value:
            raise SettingsError(
                f"{_source(key, given)} is for an external NATS, but nats is {EMBEDDED}; set nats to its URL"
            )


def _check_pair(first_key: str, first: str, second_key: str, second: str) -> None:
    if bool(first) != bool(second):
        raise SettingsError(f"{first_key} and {second_key} belong together; set both or neither")


def _check_nats_url(url: str, source: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("nats", "tls") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number
        good = False
    if not good:
        raise SettingsError(f'{source}: expected "{EMBEDDED}" or URLs like nats://host:4222 or tls://host:4222')
    if "@" in parts.netloc:
        raise SettingsError(
            f"{source}: credentials do not belong in the URL, which is logged; "
            "use FANLINE_NATS_USER and FANLINE_NATS_PASSWORD, or FANLINE_NATS_TOKEN"
        )


def _default_data_dir(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_DATA_HOME") or PurePath(environ.get("HOME", "/"), ".local", "share")
    return str(PurePath(base, "fanline"))


def _expand_home(path: object, environ: Mapping[str, str]) -> str:
    text, home = str(path), environ.get("HOME", "~").rstrip("/")
    return home + text[1:] if text.startswith("~/") else text
