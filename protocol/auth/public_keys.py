"""Public keys that verify tokens: from a PEM file, or a JSON Web Key Set (RFC 7517).

A key is used for the algorithms of its own kind only. A public key that is taken for a secret of HMAC, or a key set
that holds secrets, would let anyone who can read it make tokens.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from fanline.protocol.auth.tokens import UnusableKeyError, VerifyingKey

MAX_KEYS = 64
"""Keys that are read of one key set."""
_MIN_RSA_BITS = 2048
_RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_BY_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


def pem_key(pem: bytes) -> VerifyingKey:
    """The public key of a PEM file, or of the certificate in it. Raises UnusableKeyError."""
    if b"PRIVATE KEY" in pem:
        raise UnusableKeyError("it holds a private key; only the public one is needed here, and should be here")
    try:
        certificate = b"BEGIN CERTIFICATE" in pem
        key = load_pem_x509_certificate(pem).public_key() if certificate else load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError("it holds no public key in PEM") from None
    return VerifyingKey(key, _algorithms(key))


def read_key_set(document: bytes) -> list[VerifyingKey]:
    """The public keys of a JWKS document that are meant for signatures. Raises UnusableKeyError for a document that is
    no key set; single keys that cannot be used are left out, since a set may hold keys for others.
    """
    try:
        keys = msgspec.json.decode(document, type=dict[str, Any])["keys"]
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError):
        keys = None
    if not isinstance(keys, list):
        raise UnusableKeyError('it is no JSON Web Key Set: an object with a list "keys"')
    return list(_usable(keys[:MAX_KEYS]))


def _usable(keys: list[Any]) -> Iterator[VerifyingKey]:
    for key in keys:
        if isinstance(key, dict) and _is_meant(key):
            try:
                yield _jwk(key)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
                continue


def _is_meant(key: Mapping[str, Any]) -> bool:
    """Whether a key is a public one for signatures (RFC 7517 sections 4.2 and 4.3)."""
    operations = key.get("key_ops", ["verify"])
    verifies = isinstance(operations, list) and "verify" in operations
    return verifies and key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC", "OKP")


def _jwk(values: Mapping[str, Any]) -> VerifyingKey:
    public = {name: value for name, value in values.items() if name != "d"}  # with it, it would be a private key
    key = jwt.PyJWK.from_dict(public, algorithm=_any_algorithm(public)).key
    algorithms, named, key_id = _algorithms(key), values.get("alg"), values.get("kid")
    if named is not None:
        algorithms &= {named}
    if not algorithms or not (key_id is None or isinstance(key_id, str)):
        raise UnusableKeyError("it names an algorithm of another kind of key")
    return VerifyingKey(key, algorithms, key_id)


def _any_algorithm(values: Mapping[str, Any]) -> str:
    """One of the key's kind: PyJWT reads a key for an algorithm, and a set need not name one."""
    if values["kty"] == "RSA":
        return "RS256"
    return "EdDSA" if values["kty"] == "OKP" else {"P-384": "ES384", "P-521": "ES512"}.get(values["crv"], "ES256")


def _algorithms(key: Any) -> frozenset[str]:
    """The algorithms for which a public key may be used."""
    match key:
        case RSAPublicKey() if key.key_size >= _MIN_RSA_BITS:
            return _RSA
        case RSAPublicKey():
            raise UnusableKeyError(f"an RSA key needs {_MIN_RSA_BITS} bits, this one has {key.key_size}")
        case EllipticCurvePublicKey() if key.curve.name in _BY_CURVE:
            return frozenset((_BY_CURVE[key.curve.name],))
        case Ed25519PublicKey() | Ed448PublicKey():
            return frozenset(("EdDSA",))
    raise UnusableKeyError("its kind of key signs no tokens: RSA, EC (P-256, P-384, P-521) or Ed25519 is needed")
