"""Operator mode: the keys and JWTs that `nsc` would make, for a nats-server that trusts them and users who log in.

An operator signs accounts, an account signs its users; the server has the JWTs of operator and accounts, a user brings
its own, and signs the server's nonce. Format: docs.nats.io, "JWT", and the claims of github.com/nats-io/jwt version 2.
"""

import base64
import os
import time
from typing import Any

import msgspec
import nkeys

_NO_LIMIT = -1
_ACCOUNT_LIMITS = {
    **dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), _NO_LIMIT),
    "wildcards": True,
}
_JETSTREAM_LIMITS = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), _NO_LIMIT)
_USER_LIMITS = dict.fromkeys(("subs", "data", "payload"), _NO_LIMIT)


class SigningKey:
    """A new nkey: an operator's, an account's or a user's."""

    def __init__(self, prefix: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(self.seed.encode())
        self.public: str = self._pair.public_key.decode()

    def sign(self, data: bytes) -> bytes:
        signature: bytes = self._pair.sign(data)
        return signature

    def jwt(self, subject: str, kind: str, nats: dict[str, Any], *, expires: float | None = None) -> str:
        """A JWT about `subject`, signed with this key; `expires` in Unix seconds."""
        claims: dict[str, Any] = {
            "jti": base64.b32encode(os.urandom(30)).decode(),
            "iat": int(time.time()),
            "iss": self.public,
            "name": kind,
            "sub": subject,
            "nats": {**nats, "type": kind, "version": 2},
        }
        if expires is not None:
            claims["exp"] = int(expires)
        signed = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(claims)}"
        return f"{signed}.{_base64url(self.sign(signed.encode()))}"


def user_key() -> SigningKey:
    return SigningKey(nkeys.PREFIX_BYTE_USER)


class Operator:
    """An operator with a system account, and one account, which has JetStream."""

    def __init__(self, *, max_payload: int = _NO_LIMIT) -> None:
        self._key = SigningKey(nkeys.PREFIX_BYTE_OPERATOR)
        self._system = SigningKey(nkeys.PREFIX_BYTE_ACCOUNT)
        self._account = SigningKey(nkeys.PREFIX_BYTE_ACCOUNT)
        self._limits = {**_ACCOUNT_LIMITS, **_JETSTREAM_LIMITS, "payload": max_payload}

    def config(self) -> str:
        """For the configuration of a nats-server."""
        jwt = self._key.jwt(self._key.public, "operator", {"system_account": self._system.public})
        accounts = {
            self._system.public: self._key.jwt(self._system.public, "account", {"limits": _ACCOUNT_LIMITS}),
            self._account.public: self._key.jwt(self._account.public, "account", {"limits": self._limits}),
        }
        preload = "\n".join(f"  {public}: {jwt}" for public, jwt in accounts.items())
        return (
            f"operator: {jwt}\nsystem_account: {self._system.public}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
        )

    def creds(self, *, expires: float | None = None, permissions: dict[str, Any] | None = None) -> str:
        """The creds file of a new user of the account."""
        key = user_key()
        claims = {**_USER_LIMITS, **(permissions or {})}
        return creds_file(self._account.jwt(key.public, "user", claims, expires=expires), key.seed)


def creds_file(jwt: str, seed: str) -> str:
    """As `nsc` writes it: yes, the lines have five dashes at the beginning and six at the end."""
    return f"""-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.
NKEYs are sensitive and should be treated as secrets.

-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------

*************************************************************
"""


def _part(value: dict[str, Any]) -> str:
    return _base64url(msgspec.json.encode(value))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
