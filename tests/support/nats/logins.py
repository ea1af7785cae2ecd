"""Every way to log in to NATS: a real nats-server that wants it, options that are right, and some that are wrong."""

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import trustme

from fanline.protocol.nats.options import NatsOptions
from tests.support.nats.operator import Operator, SigningKey, user_key
from tests.support.nats.server import NatsServer, running_nats


class NatsLogin(NamedTuple):
    """A running server, and how to log in to it."""

    server: NatsServer
    options: NatsOptions
    wrong: dict[str, NatsOptions]
    """Options that must not lead to a connection, by what is said about them: a regular expression."""


OpenLogin = Callable[[Path], AbstractAsyncContextManager[NatsLogin]]
REFUSED = "refused the login: Authorization Violation"
TOKEN, USER, PASSWORD = "s3cret/@:%", "al ice", "p@ss:word/%"


@asynccontextmanager
async def token_login(_: Path) -> AsyncIterator[NatsLogin]:
    async with running_nats(config=f"authorization {{ token: {quoted(TOKEN)} }}") as server:
        right = NatsOptions((server.url,), token=TOKEN)
        yield NatsLogin(server, right, {REFUSED: NatsOptions((server.url,), token="guessed")})


@asynccontextmanager
async def token_in_url_login(_: Path) -> AsyncIterator[NatsLogin]:
    async with running_nats(config=f"authorization {{ token: {quoted(TOKEN)} }}") as server:
        right = NatsOptions((server.url.replace("//", "//s3cret%2F%40%3A%25@"),))
        yield NatsLogin(server, right, {REFUSED: NatsOptions((server.url.replace("//", "//guessed@"),))})


@asynccontextmanager
async def user_login(_: Path) -> AsyncIterator[NatsLogin]:
    async with running_nats(config=_users(f"user: {quoted(USER)}, password: {quoted(PASSWORD)}")) as server:
        right = NatsOptions((server.url,), user=USER, password=PASSWORD)
        yield NatsLogin(server, right, {REFUSED: NatsOptions((server.url,), user=USER, password="guessed")})


@asynccontextmanager
async def nkey_login(directory: Path) -> AsyncIterator[NatsLogin]:
    key = user_key()
    async with running_nats(config=_users(f"nkey: {key.public}")) as server:
        right = NatsOptions((server.url,), nkey=_seed_file(directory / "right.nk", key))
        yield NatsLogin(
            server,
            right,
            {
                REFUSED: NatsOptions((server.url,), nkey=_seed_file(directory / "other.nk", user_key())),
                "cannot read the NATS credentials": NatsOptions((server.url,), nkey=str(directory / "missing.nk")),
            },
        )


@asynccontextmanager
async def creds_login(directory: Path) -> AsyncIterator[NatsLogin]:
    operator = Operator()
    files = {
        "right": operator.creds(),
        "foreign": Operator().creds(),
        "expired": operator.creds(expires=time.time() - 10),
        "cut": operator.creds()[:100],
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    async with running_nats(config=operator.config()) as server:
        creds = {name: NatsOptions((server.url,), creds=str(directory / name)) for name in files}
        wrong = {
            REFUSED: creds["foreign"],
            "refused the login: (User Authentication Expired|Authorization Violation)": creds["expired"],
            "does not hold a user JWT and its seed": creds["cut"],
        }
        yield NatsLogin(server, creds["right"], wrong)


@asynccontextmanager
async def tls_login(directory: Path) -> AsyncIterator[NatsLogin]:
    authority = trustme.CA()
    ca, other = _authority(directory, authority, "ca"), _authority(directory, trustme.CA(), "other-ca")
    cert, key = certificate(directory, authority, "localhost")
    async with running_nats(config=f"tls {{ cert_file: {quoted(cert)}, key_file: {quoted(key)} }}") as server:
        url = f"nats://localhost:{server.port}"
        wrong = {
            "certificate verify failed: unable to get local issuer": NatsOptions(
                (url,)
            ),  # the authorities of the system
            "certificate verify failed": NatsOptions((url,), tls_ca=other),
            "not valid for '127.0.0.1'": NatsOptions((server.url,), tls_ca=ca),
            "the TLS files for NATS cannot be used": NatsOptions((url,), tls_ca=key),
        }
        yield NatsLogin(server, NatsOptions((url,), tls_ca=ca), wrong)


@asynccontextmanager
async def mutual_tls_login(directory: Path) -> AsyncIterator[NatsLogin]:
    authority, stranger = trustme.CA(), trustme.CA()
    ca = _authority(directory, authority, "ca")
    cert, key = certificate(directory, authority, "localhost")
    client_cert, client_key = certificate(directory, authority, "client")
    other_cert, other_key = certificate(directory, stranger, "stranger")
    tls = f"cert_file: {quoted(cert)}, key_file: {quoted(key)}, ca_file: {quoted(ca)}, verify: true"
    async with running_nats(config=f"tls {{ {tls} }}") as server:
        urls = (f"tls://localhost:{server.port}",)
        right = NatsOptions(urls, tls_ca=ca, tls_cert=client_cert, tls_key=client_key)
        wrong = {
            "certificate required|closed": NatsOptions(urls, tls_ca=ca),
            "unknown ca|bad certificate|closed": NatsOptions(urls, tls_ca=ca, tls_cert=other_cert, tls_key=other_key),
            "the TLS files for NATS cannot be used": NatsOptions(
                urls, tls_ca=ca, tls_cert=client_cert, tls_key=other_key
            ),
        }
        yield NatsLogin(server, right, wrong)


@asynccontextmanager
async def several_urls_login(_: Path) -> AsyncIterator[NatsLogin]:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        url = f"nats://127.0.0.1:{dead.getsockname()[1]}"
        async with running_nats() as server:
            yield NatsLogin(server, NatsOptions((url, server.url)), {"refused": NatsOptions((url, url))})


LOGINS: dict[str, OpenLogin] = {
    "token": token_login,
    "token in the URL": token_in_url_login,
    "user and password": user_login,
    "nkey": nkey_login,
    "creds": creds_login,
    "TLS": tls_login,
    "mutual TLS": mutual_tls_login,
    "several URLs": several_urls_login,
}


@asynccontextmanager
async def running_with_denials(publish: str, subscribe: str) -> AsyncIterator[NatsLogin]:
    """A user who may do all but publish to the one subject, and subscribe to the other."""
    denials = f"publish: {{ deny: {quoted(publish)} }}, subscribe: {{ deny: {quoted(subscribe)} }}"
    config = _users(f"user: limited, password: p, permissions: {{ {denials} }}")
    async with running_nats(config=config) as server:
        yield NatsLogin(server, NatsOptions((server.url,), user="limited", password="p"), {})


def certificate(directory: Path, authority: trustme.CA, name: str) -> tuple[str, str]:
    """Paths of a certificate and its key."""
    issued = authority.issue_cert(name)
    cert, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return str(cert), str(key)


def _authority(directory: Path, authority: trustme.CA, name: str) -> str:
    path = str(directory / f"{name}.pem")
    authority.cert_pem.write_to_path(path)
    return path


def _seed_file(path: Path, key: SigningKey) -> str:
    path.write_text(key.seed + "\n")
    return str(path)


def _users(user: str) -> str:
    return f"authorization {{ users: [ {{ {user} }} ] }}\n"


def quoted(text: str) -> str:
    """For a configuration of nats-server, in which JSON strings are valid."""
    return msgspec.json.encode(text).decode()
