"""Which web pages may open a WebSocket, judged by `Host` and `Origin` (RFC 6454; RFC 6455 section 10.2).

A browser lets every page open a WebSocket to any address that the browser's machine can reach, loopback included, and
the page may read and write it. Pages cannot set the two headers that tell them apart:

- `Host` is the name by which the page knows the server. The owner of `evil.example` may let that name resolve to
  127.0.0.1 (DNS rebinding), and the page then passes for one of ours; but its requests still say `evil.example`. An
  address cannot be made to resolve elsewhere, so the address of the connection itself is a good name, too.
- `Origin` is where the page came from. Programs send none, and need no permission.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Annotated, NamedTuple

from msgspec import Meta

from fanline.protocol.errors import HttpError
from fanline.protocol.websocket.handshake import Request

_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+"
_PORT = r"[0-9]{1,5}"
_ORIGIN = rf"[A-Za-z][A-Za-z0-9+.\-]*://(?:{_HOST})(?::{_PORT})?"
_AUTHORITY = re.compile(rf"({_HOST})(?::({_PORT})?)?")
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_MAX_SHOWN = 120  # characters of a header that a sentence quotes

HostName = Annotated[str, Meta(pattern=rf"^(?:{_HOST})\Z", max_length=253, description="host names without ports")]
OriginName = Annotated[
    str, Meta(pattern=rf"^{_ORIGIN}\Z", max_length=300, description="origins like https://app.example")
]


class _Authority(NamedTuple):
    """A host, and its port if one is given."""

    host: str
    port: int | None


class HostRules:
    """The rules of one server. `hosts` and `origins` are the settings of these names."""

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._hosts = {_bare(host) for host in hosts}
        self._origins = {_origin_key(origin) for origin in origins}

    def check(self, request: Request, own_address: str) -> None:
        """Raises HttpError 400 or 403, naming the setting. `own_address`: that of our end of the connection.

        A request without `Host` passes: it cannot come from a page, and no WebSocket is opened for it.
        """
        header = request.headers.get("host")
        if header is None:
            return
        authority = _read_authority(header)
        if authority is None:
            raise HttpError(400, "Host is not a host name with or without a port")
        if not self._is_ours(authority.host, own_address):
            raise HttpError(
                403,
                f"this server is not known as {_shown(authority.host)}; if clients may use that name, add it to the "
                "setting hosts in [engine]",
            )
        origin = request.headers.get("origin")
        if origin is not None and not self._is_allowed(origin, authority):
            raise HttpError(403, _origin_refusal(origin))

    def _is_ours(self, host: str, own_address: str) -> bool:
        return host in self._hosts or host == own_address.lower() or is_loopback_host(host)

    def _is_allowed(self, origin: str, authority: _Authority) -> bool:
        if re.fullmatch(_ORIGIN, origin) is None:
            return False
        scheme, host, port = key = _origin_key(origin)
        own_port = _DEFAULT_PORTS.get(scheme) if authority.port is None else authority.port
        return (host, port) == (authority.host, own_port) or key in self._origins


def _read_authority(header: str) -> _Authority | None:
    match = _AUTHORITY.fullmatch(header)
    return None if match is None else _Authority(_bare(match[1]), int(match[2]) if match[2] else None)


def _origin_key(origin: str) -> tuple[str, str, int | None]:
    """Scheme, host and port; a port that is left out is the scheme's own."""
    scheme, _, rest = origin.lower().partition("://")
    authority = _read_authority(rest)
    assert authority is not None  # the grammar of an origin says so
    return scheme, authority.host, _DEFAULT_PORTS.get(scheme) if authority.port is None else authority.port


def _bare(host: str) -> str:
    return host.lower().strip("[]").removesuffix(".")


def is_loopback_host(host: str) -> bool:
    """Whether a host can be reached from this machine only. The only name accepted is `localhost`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin_refusal(origin: str) -> str:
    if origin == "null":
        return (
            "pages without an origin (files, sandboxed frames) may not connect; serve the page from a web server, and "
            "add its origin to the setting origins in [engine]"
        )
    return (
        f"pages of {_shown(origin)} may not connect; if they should, add that origin to the setting origins in [engine]"
    )


def _shown(text: str) -> str:
    """What a client sent, for a sentence: a log and a terminal only display it."""
    return ascii(text[:_MAX_SHOWN])[1:-1]
