"""Reading the settings: defaults < fanline.toml < FANLINE_* environment < flags, merged and checked once at start."""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from fanline.engine.access.settings import AccessSettings, HandlerSettings, TokenSettings
from fanline.engine.hooks.settings import HookSettings
from fanline.engine.settings import EngineSettings
from fanline.workers.configuration.access import read_roles
from fanline.workers.configuration.hooks import read_webhooks
from fanline.workers.configuration.monitor import MonitorSettings, read_alarms
from fanline.workers.configuration.namespaces import read_namespaces, with_room_authorizer
from fanline.workers.configuration.notifications import (
    NotificationSettings,
    read_groups,
    read_levels,
    read_templates,
)
from fanline.workers.configuration.routes import read_routes
from fanline.workers.configuration.rules import Given, check_together
from fanline.workers.configuration.settings import Settings
from fanline.workers.configuration.wording import describe_type, field_types, is_list, suggest
from fanline.workers.errors import SettingsError

CONFIG_NAME = "fanline.toml"
ENV_PREFIX = "FANLINE_"
OTHER_VARIABLES = frozenset(
    {
        "FANLINE_STATE_DIR",
        "FANLINE_LOAD_URL",
        "FANLINE_LOAD_NATS",
        "FANLINE_TOKEN",
        "FANLINE_API_KEY",
        "FANLINE_URL",
        "FANLINE_TASK",
        "FANLINE_SOCKET",
    }
)
"""Documented variables that are not settings."""

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
    "notifications": NotificationSettings,
    "monitor": MonitorSettings,
}
_READERS: Mapping[str, tuple[str, Callable[[Any, str], object]]] = {
    "namespaces": ("engine.namespaces", read_namespaces),
    "routes": ("engine.routes", read_routes),
    "webhooks": ("webhooks", read_webhooks),
    "alarms": ("alarms", read_alarms),
    "access.roles": ("access.roles", read_roles),
    "notifications.levels": ("notifications.levels", read_levels),
    "notifications.templates": ("notifications.templates", read_templates),
    "notifications.groups": ("notifications.groups", read_groups),
}
"""Tables of the file with a reader of their own -> the setting that they become, and the function that reads them."""
_SECRETS = frozenset(  # a URL may hold a password
    (
        *("nats_password", "nats_token", "nats", "tokens.secret", "access.authenticator", "access.room_authorizer"),
        *("notifications.email", "notifications.sms", "notifications.push"),
    )
)


def load_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], toml: tuple[str, str] | None = None
) -> Settings:
    """Merge and check all sources, without I/O. `flags`: key -> value or None if not given. `toml`: (path, text).

    Raises SettingsError naming the key, its source and what is accepted.
    """
    given = {
        "data_dir": Given(_default_data_dir(environ), "default"),
        **dict(_from_toml(*toml) if toml else ()),
        **dict(_from_environ(environ)),
        **{key: Given(value, _flag(key)) for key, value in flags.items() if value is not None},
    }
    values: dict[str, Any] = {key: _check(key, item) if key in _TYPES else item.value for key, item in given.items()}
    values |= {key: _expand_home(values[key], environ) for key in _PATHS if key in values}
    if authorizer := values.get("access.room_authorizer"):
        values["engine.namespaces"] = with_room_authorizer(values.get("engine.namespaces", {}), str(authorizer))
    tables = {table: _pop_table(values, f"{table}.") for table in _TABLES}
    settings = msgspec.convert({**values, **tables}, Settings)
    check_together(settings, given)
    return settings


_TYPES = field_types(Settings)
for _name, _struct in _TABLES.items():
    _TYPES |= field_types(_struct, f"{_name}.")
for _table in (*_TABLES, *(setting for setting, _ in _READERS.values())):
    del _TYPES[_table]


def _pop_table(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): values.pop(key) for key in [*values] if key.startswith(prefix)}


def _from_toml(path: str, text: str) -> Iterator[tuple[str, Given]]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
    for name in _TABLES:
        inner = table.pop(name, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"bad value for {name} in {path}: expected a table, [{name}]")
        table |= {f"{name}.{key}": value for key, value in inner.items()}
    for key, (setting, read) in _READERS.items():
        if key in table:
            yield setting, Given(read(table.pop(key), path), path, typed=True)
    for key, value in table.items():
        if key not in _TYPES:
            raise SettingsError(f"unknown setting {key} in {path}; {_where_it_belongs(key)}")
        yield key, Given(value, path, typed=True)


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
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
        yield names[name], Given(value, name)


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
    return suggest(key, (*_TYPES, *_TABLES, *_READERS))


def _check(key: str, given: Given) -> object:
    """The value in the type of its setting. Text holds a list with commas."""
    value = given.value
    if is_list(_TYPES[key]) and not given.typed:
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        return msgspec.convert(value, _TYPES[key], strict=given.typed)
    except msgspec.ValidationError:
        expected = describe_type(_TYPES[key])
        raise SettingsError(f"bad value for {key} ({_shown(key, given)}): expected {expected}") from None


def _shown(key: str, given: Given) -> str:
    """The value, unless it is a secret, and its source."""
    return given.source if key in _SECRETS else f"{given.value!r} from {given.source}"


def _default_data_dir(environ: Mapping[str, str]) -> str:
    base = environ.get("XDG_DATA_HOME") or PurePath(environ.get("HOME", "/"), ".local", "share")
    return str(PurePath(base, "fanline"))


def _expand_home(path: object, environ: Mapping[str, str]) -> str:
    text, home = str(path), environ.get("HOME", "~").rstrip("/")
    return home + text[1:] if text.startswith("~/") else text
