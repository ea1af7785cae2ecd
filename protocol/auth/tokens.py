"""Signed tokens: JSON Web Tokens, verified and made by PyJWT.

Which algorithms are accepted is fixed by the configuration of each key, never by the token: a token that names another
one, `none` among them, is refused before anything is computed (RFC 8725 section 3.1).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from jwt.types import Options

from fanline.protocol.auth.claims import MIN_SECRET_BYTES, Claims, TokenError, check_times, read_claims

MAX_TOKEN_BYTES = 8192
"""A longer token is refused unread."""
HMAC = frozenset(("HS256", "HS384", "HS512"))
ALGORITHMS = HMAC | frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)

_UNCHECKED: Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}


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


class Header(NamedTuple):
    """What a token says of its signature, not verified."""

    algorithm: str
    key_id: str | None


class UnusableKeyError(ValueError):
    """A key that cannot be used; str() is a sentence for the person who configured it, without the key."""


def secret_key(secret: str) -> VerifyingKey:
    """The key of a shared secret, for HMAC. Raises UnusableKeyError."""
    raw = secret.encode()
    if len(raw) < MIN_SECRET_BYTES:
        raise UnusableKeyError(f"the secret has {len(raw)} bytes; it needs {MIN_SECRET_BYTES}, drawn at random")
    if secret.lstrip().startswith(("-----BEGIN", "ssh-")):
        raise UnusableKeyError("this is a public or private key, not a secret")
    return VerifyingKey(raw, HMAC)


def read_header(token: str) -> Header:
    """Raises TokenError for what is no token."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(f"the token is longer than {MAX_TOKEN_BYTES} bytes")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise TokenError("this is no token (a JSON Web Token has three parts, divided by dots)") from None
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (key_id is None or isinstance(key_id, str)):
        raise TokenError("the token's header has no algorithm")
    if "crit" in header:
        raise TokenError("the token needs an extension that is not known here (crit)")  # RFC 7515 section 4.1.11
    return Header(algorithm, key_id)


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
    claims = read_claims(_verified(token, fitting, header.algorithm, rules))
    check_times(claims, now, rules.leeway)
    return claims


def sign(claims: Mapping[str, Any], secret: bytes) -> str:
    """A token with these claims, signed with a secret (HS256)."""
    return jwt.encode(dict(claims), secret, algorithm="HS256")


def _verified(token: str, keys: Sequence[VerifyingKey], algorithm: str, rules: TokenRules) -> dict[str, Any]:
    options: Options = {**_UNCHECKED, "verify_aud": rules.audience is not None, "verify_iss": rules.issuer is not None}
    for key in keys:
        try:
            return jwt.decode(token, key.key, [algorithm], options, audience=rules.audience, issuer=rules.issuer)
        except jwt.InvalidSignatureError:
            continue
        except jwt.MissingRequiredClaimError as error:
            raise TokenError(f"the token has no claim {error.claim}") from None
        except jwt.InvalidAudienceError:
            raise TokenError("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise TokenError("the token is from another issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise TokenError("the token cannot be read") from None
    raise TokenError("the token's signature is wrong")
