"""Signed tokens: JSON Web Tokens, verified and made by PyJWT.

Which algorithms are accepted is fixed by the configuration of each key, never by the token: a token that names another
one, `none` among them, is refused before anything is computed (RFC 8725 section 3.1).
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
import msgspec

from fanline.protocol.auth.claims import MIN_SECRET_BYTES, Claims, TokenError, check_meant, check_times, decode_claims

MAX_TOKEN_BYTES = 8192
"""A longer token is refused unread."""
_HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithm -> the bytes that its secret needs: as many as the hash has (RFC 7518 section 3.2)."""
ALGORITHMS = frozenset(
    (*_HMAC_BYTES, "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)
_ALGORITHMS = jwt.algorithms.get_default_algorithms()


class VerifyingKey(NamedTuple):
    """A key, and the algorithms for which it is used."""

    key: Any
    """A secret as bytes, or a public key as PyJWT prepares it."""
    algorithms: frozenset[str]
    id: str | None = None
    """What a token may name in its header `kid`."""


class TokenRules(NamedTuple):
    """What a token must say to be ours."""

    audience: str | None = None
    issuer: str | None = None
    leeway: float = 10.0
    """Seconds by which clocks may differ."""


class Header(msgspec.Struct, frozen=True, rename={"algorithm": "alg", "key_id": "kid"}):
    """What a token says about its signature, not verified."""

    algorithm: str
    key_id: str | None = None
    crit: Any = None
    b64: Any = None


class UnusableKeyError(ValueError):
    """A key that cannot be used; str() is a sentence for the person who configured it, without the key."""


def secret_key(secret: str) -> VerifyingKey:
    """The key of a shared secret, for HMAC. Raises UnusableKeyError."""
    raw = secret.encode()
    if len(raw) < MIN_SECRET_BYTES:
        raise UnusableKeyError(f"the secret has {len(raw)} bytes; it needs {MIN_SECRET_BYTES}, drawn at random")
    try:
        _ALGORITHMS["HS256"].prepare_key(raw)  # which knows keys in PEM, SSH, DER and JWK
    except jwt.InvalidKeyError:
        raise UnusableKeyError("this is a public or private key, not a secret") from None
    return VerifyingKey(raw, frozenset(name for name, size in _HMAC_BYTES.items() if len(raw) >= size))


def read_header(token: str) -> Header:
    """Raises TokenError for a text that is not a token."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        first, _, _ = token.split(".")
        header = msgspec.json.decode(_decoded(first), type=Header)
    except (ValueError, RecursionError):
        raise TokenError("this is no token (a JSON Web Token has three parts, divided by dots)") from None
    if header.crit is not None or header.b64 is not None:  # RFC 7515 section 4.1.11, RFC 7797 section 6
        raise TokenError("the token needs an extension that is not known here (crit)")
    return header


def candidates(keys: Sequence[VerifyingKey], header: Header) -> list[VerifyingKey]:
    """The keys with which a token may be verified: the one that it names; if it names none, those without an id, or the
    only one there is.
    """
    fitting = [key for key in keys if header.algorithm in key.algorithms]
    if header.key_id is not None:
        named = [key for key in fitting if key.id == header.key_id]
        return named or [key for key in fitting if key.id is None]
    unnamed = [key for key in fitting if key.id is None]
    return unnamed or (fitting if len(fitting) == 1 else [])


def verify(token: str, keys: Sequence[VerifyingKey], rules: TokenRules, now: float) -> Claims:
    """The claims of a token that one of the keys has signed and that is valid `now` (Unix seconds). TokenError."""
    header = read_header(token)
    if header.algorithm not in ALGORITHMS:
        raise TokenError("the token is not signed with an algorithm that is accepted here")
    fitting = candidates(keys, header)
    if not fitting:
        raise TokenError("the token is signed with a key that is not known here")
    claims = decode_claims(_verified(token, fitting, header.algorithm))
    check_meant(claims, rules.audience, rules.issuer)
    check_times(claims, now, rules.leeway)
    return claims


def sign(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token with these claims, signed with a secret (HS256)."""
    return jwt.encode(dict(claims), secret, algorithm="HS256")


def _verified(token: str, keys: Sequence[VerifyingKey], algorithm: str) -> bytes:
    """The claims of a token whose signature is right, JSON. TokenError.

    PyJWT's algorithms do the work. Its parser takes ten times as long as the HMAC, and longer the longer a token is.
    """
    signed, _, last = token.rpartition(".")
    try:
        signature, payload = _decoded(last), _decoded(signed.partition(".")[2])
        if any(_ALGORITHMS[algorithm].verify(signed.encode("ascii"), key.key, signature) for key in keys):
            return payload
    except (jwt.PyJWTError, ValueError, TypeError):
        raise TokenError("the token cannot be read") from None
    raise TokenError("the token's signature is wrong")


def _decoded(part: str) -> bytes:
    """A part of a token in base64url, perhaps padded. ValueError for any other text, and for another way of writing the
    same bytes (RFC 4648 section 3.5).
    """
    bare = part.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    decoded = urlsafe_b64decode(padded)
    if part not in (bare, padded) or urlsafe_b64encode(decoded) != padded.encode("ascii"):
        raise ValueError("this is not base64url")
    return decoded
