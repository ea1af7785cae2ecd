"""Which NATS a program uses: the one that it was given, that of its environment, or that of the server on this machine.

The variables have the names of the server's settings (docs/reference/settings.md), so that one environment serves both.
"""

import logging
import os
from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from fanline.local import TO_PRODUCERS, NoServer, find_server
from fanline.protocol.nats.addresses import parse_url
from fanline.protocol.nats.options import NatsOptions, split_urls
from fanline.protocol.nats.parser import NatsError
from fanline.protocol.serve_state import as_engine, nats_options

URL_VARIABLES = ("FANLINE_NATS", "NATS_URL")
"""The first one that names a server counts."""
_PREFIX = "FANLINE_NATS_"
_EMBEDDED = "embedded"  # what FANLINE_NATS says to a server that runs a NATS of its own; it is found as on this machine
_LOGINS = ("user", "password", "token", "creds", "nkey")
_TLS = ("tls_ca", "tls_cert", "tls_key")
_PATHS = ("creds", "nkey", *_TLS)
_log = logging.getLogger("fanline")


def given_options(nats: str | NatsOptions, environ: Mapping[str, str] | None = None) -> NatsOptions:
    """What a job or a command passed: options, which are taken as they are, or URLs, separated by commas, to which the
    environment adds the rest. Raises TypeError or ValueError.
    """
    if isinstance(nats, str):
        return _with_files(_checked(NatsOptions(split_urls(nats))), os.environ if environ is None else environ)
    return _checked(nats)


def environment_options(
    environ: Mapping[str, str] | None = None, names: Sequence[str] = URL_VARIABLES
) -> NatsOptions | None:
    """What the environment says; None if it names no server. A variable that cannot be used is ignored, with a warning,
    so that no job fails.
    """
    environ = os.environ if environ is None else environ
    for name in names:
        urls = environ.get(name, "").strip()
        if not urls or urls == _EMBEDDED:
            continue
        try:
            return given_options(urls, environ)
        except ValueError as error:
            _log.warning("%s is ignored: %s", name, error)
    return None


def find_options(given: NatsOptions | None) -> NatsOptions:
    """The given ones, those of the environment, or those of the local server. Raises NoServer."""
    return given or environment_options() or nats_options(find_server(advice=TO_PRODUCERS))


def find_engine_options(url: str | None = None) -> NatsOptions:
    """Those with which a command changes what is the engine's own: of FANLINE_NATS, which is for the server as well, or
    of the local server, the one at `url` if that is given; NATS_URL, which may be a producer's, comes last. Raises
    NoServer.
    """
    server = environment_options(names=URL_VARIABLES[:1])
    if url is not None:
        return nats_options(as_engine(find_server(url=url)))
    if server is not None:
        return server
    try:
        return nats_options(as_engine(find_server(advice=TO_PRODUCERS)))
    except NoServer:
        return find_options(None)


def has_server(given: NatsOptions | None = None) -> bool:
    """Whether a NATS is known: given, in the environment, or of a `fanline serve` that runs on this machine."""
    try:
        find_options(given)
    except NoServer:
        return False
    return True


def _with_files(options: NatsOptions, environ: Mapping[str, str]) -> NatsOptions:
    """With the rest of the environment. A URL with credentials of its own needs none."""
    logs_in = any(address.user or address.token for address in map(parse_url, options.servers))
    names = _TLS if logs_in else (*_LOGINS, *_TLS)
    return _checked(replace(options, **{name: environ.get(f"{_PREFIX}{name.upper()}", "") for name in names}))


def _checked(options: object) -> NatsOptions:
    """The options, with absolute paths. Raises TypeError or ValueError."""
    if not isinstance(options, NatsOptions):
        raise TypeError(f"nats: expected URLs or NatsOptions, not {type(options).__name__}")
    values = msgspec.structs.asdict(options)
    servers = values.pop("servers")
    if isinstance(servers, str) or not all(isinstance(text, str) for text in (*servers, *values.values())):
        raise TypeError("nats: servers must be a tuple of URLs, and everything else a str")
    if not servers:
        raise ValueError("nats: no server is named")
    try:
        for url in servers:
            parse_url(url)
    except NatsError as error:
        raise ValueError(str(error)) from None
    paths = {name: os.path.abspath(os.path.expanduser(path)) for name in _PATHS if (path := values[name])}  # noqa: PTH100, PTH111  # a text remains one
    return NatsOptions(servers=tuple(servers), **{**values, **paths})
