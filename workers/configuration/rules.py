"""The rules between settings, and those that a type cannot express."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from fanline.engine.access.settings import AuthMode
from fanline.protocol.websocket.origins import is_loopback_host
from fanline.workers.configuration.access import check_access
from fanline.workers.configuration.hooks import check_hooks
from fanline.workers.configuration.notifications import check_notifications
from fanline.workers.configuration.routes import check_routes
from fanline.workers.configuration.settings import EMBEDDED, Settings
from fanline.workers.errors import SettingsError

_MODES = 'set auth to "token", or to "open" if that is what you want'


class Given(NamedTuple):
    """A value and its source: "--port", "FANLINE_PORT" or "fanline.toml"."""

    value: object
    source: str
    typed: bool = False
    """Whether the source has types of its own, as TOML does; environment and flags are text."""


def check_together(settings: Settings, given: Mapping[str, Given]) -> None:
    """Raises SettingsError naming the setting, its source and what is accepted."""
    check_access(settings.tokens, settings.access)
    check_hooks(settings.hooks)
    check_notifications(settings.notifications)
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


def _source(key: str, given: Mapping[str, Given]) -> str:
    return f"{key} ({given[key].source})" if key in given else key


def _check_host(settings: Settings, given: Mapping[str, Given]) -> None:
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


def _check_no_external_nats(given: Mapping[str, Given]) -> None:
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
