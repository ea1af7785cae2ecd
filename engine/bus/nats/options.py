"""How to reach NATS: servers, credentials, the patience of the client, and the version that is needed."""

import ssl
from typing import Any

import msgspec

from fanline.engine.bus.interface import BusError

RETRY_SECONDS = 0.2
"""Rest after a failure before the next attempt."""
_CONNECT_SECONDS = 2
_PING_SECONDS = 10
_MAX_PINGS = 2
DEAD_SECONDS = _PING_SECONDS * _MAX_PINGS
"""A connection may have been dead for this long before it is noticed: the time it takes to miss the pings."""

MINIMUM_VERSION = (2, 11)
"""Older servers lack per-message TTL and the batched direct get with which durable channels are read."""


class NatsOptions(msgspec.Struct, frozen=True):
    """Servers and credentials. An empty string means: not used."""

    servers: tuple[str, ...]
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    """Path of a creds file (JWT and seed)."""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    def describe(self) -> str:
        """The servers without credentials, for logs and errors."""
        return ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in self.servers)

    def client_options(self, name: str) -> dict[str, Any]:
        """Where to connect, as whom and how patiently, as keyword arguments for nats-py; `name` is for the server's
        logs. BusError if the TLS files cannot be used.
        """
        credentials = {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.creds,
        }
        used = {key: value for key, value in credentials.items() if value}
        patience = {
            "connect_timeout": _CONNECT_SECONDS,
            "reconnect_time_wait": RETRY_SECONDS,
            "max_reconnect_attempts": -1,
            "ping_interval": _PING_SECONDS,
            "max_outstanding_pings": _MAX_PINGS,
        }
        return {"name": f"fanline {name}", "servers": list(self.servers), "tls": self.tls_context(), **patience, **used}

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context these options ask for; None leaves it to the URL. BusError if the files cannot be used."""
        if not (self.tls_ca or self.tls_cert):
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key or None)
        except OSError as error:  # ssl.SSLError is one
            raise BusError(f"the TLS files for NATS cannot be used: {error}") from None
        return context


def check_version(*found: int) -> None:
    """BusError if a server of this version is too old."""
    if found[:2] < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION))
        raise BusError(f"it is version {'.'.join(map(str, found))}; Fanline needs {wanted} or newer")
