"""How to reach NATS."""

import ssl
from typing import Any

import msgspec

from fanline.engine.bus.interface import BusError


class NatsOptions(msgspec.Struct, frozen=True):
    """Servers and credentials. Empty strings mean: not used."""

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

    def client_options(self) -> dict[str, Any]:
        """Where to connect and as whom, in the words of nats-py. BusError if the TLS files cannot be used."""
        credentials = {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "user_credentials": self.creds,
        }
        used = {key: value for key, value in credentials.items() if value}
        return {"servers": list(self.servers), "tls": self.tls_context(), **used}

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
