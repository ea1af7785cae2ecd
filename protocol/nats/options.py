"""How to reach NATS: the servers, and the credentials for them."""

import msgspec

from fanline.protocol.nats.addresses import parse_url


def split_urls(text: str) -> tuple[str, ...]:
    """URLs that are separated by commas."""
    return tuple(url.strip() for url in text.split(",") if url.strip())


class NatsOptions(msgspec.Struct, frozen=True):
    """What a server's settings and a producer's arguments say, under the same names. An empty string is not used."""

    servers: tuple[str, ...]
    """URLs."""
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""
    """Path of a creds file (JWT and seed)."""
    nkey: str = ""
    """Path of a file with the seed of an nkey."""
    tls_ca: str = ""
    """Path of the certificate authority to trust, PEM."""
    tls_cert: str = ""
    """Path of the client certificate, PEM."""
    tls_key: str = ""
    """Path of its private key, PEM; empty if the certificate's file holds it."""

    @property
    def tls(self) -> bool:
        """Whether TLS is required whatever the URLs say."""
        return bool(self.tls_ca or self.tls_cert)

    def describe(self) -> str:
        """The servers without credentials, for logs and errors."""
        return ", ".join(str(parse_url(url)) for url in self.servers)
