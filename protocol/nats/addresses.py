"""Where NATS is: URLs, and the pool of servers that a client tries one after the other."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from fanline.protocol.hosts import is_ip
from fanline.protocol.nats.parser import NatsError

DEFAULT_PORT = 4222


class NatsAddress(NamedTuple):
    """Where a server listens, and the credentials in its URL; what the URL lacks is empty."""

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = ""
    token: str = ""
    named_as: str = ""
    """The configured host, if a server of its cluster announced this one by its IP address."""

    @property
    def certified_host(self) -> str:
        """The host that the server's certificate must be for."""
        return self.named_as or self.host

    def __str__(self) -> str:
        """Without credentials, for logs and errors."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str) -> NatsAddress:
    """`nats://[token@|user:password@]host[:port]`, `tls://` for TLS, or bare `host[:port]`. Raises NatsError."""
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError as error:
        raise NatsError(f"not a NATS URL: {url!r} ({error})") from None
    if parts.scheme not in ("nats", "tls") or not parts.hostname or not port:
        raise NatsError(f"not a NATS URL: {url!r} (expected nats://host:port or tls://host:port)")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    token = "" if parts.password is not None else user
    return NatsAddress(parts.hostname, port, parts.scheme == "tls", "" if token else user, password, token)


def url_of(address: NatsAddress) -> str:
    """The inverse of `parse_url`."""
    secrets = (address.token,) if address.token else (address.user, address.password) if address.user else ()
    login = ":".join(quote(secret, safe="") for secret in secrets) + "@" * bool(secrets)
    return f"{'tls' if address.tls else 'nats'}://{login}{address}"


class ServerPool:
    """The servers of a cluster, tried in turn: those that are configured, then those that a server has announced."""

    def __init__(self, named: Sequence[NatsAddress]) -> None:
        if not named:
            raise NatsError("no NATS server is named")
        self._named = tuple(named)
        self._servers = self._named
        self._next = 0

    def __len__(self) -> int:
        return len(self._servers)

    def next(self) -> NatsAddress:
        """The server to try now."""
        server = self._servers[self._next % len(self._servers)]
        self._next = (self._next + 1) % len(self._servers)
        return server

    def tell(self, connect_urls: Iterable[str]) -> None:
        """Take the servers that a server announces, in place of those announced before. A URL that cannot be read is
        left out. Credentials and TLS are those of the first configured server.
        """
        told = [address for url in connect_urls if (address := self._told(url)) is not None]
        known = {(server.host, server.port): server for server in (*told, *self._named)}
        named = {(server.host, server.port): server for server in self._named}
        self._servers = tuple((named | known).values())

    def _told(self, url: str) -> NatsAddress | None:
        try:
            host, port = parse_url(url)[:2]
        except NatsError:
            return None
        first = self._named[0]
        return first._replace(host=host, port=port, named_as=first.certified_host if is_ip(host) else "")
