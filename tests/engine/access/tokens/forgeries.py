"""Tokens that must not pass, made as attackers make them."""

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.engine.access.clients import token

RSA = rsa.generate_private_key(65537, 2048)
"""The key of the server's identity provider; the public half is known to all."""
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ATTACKER = rsa.generate_private_key(65537, 2048)
LEEWAY = 10.0
_JWK = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(ATTACKER.public_key()))


def claims(**more: Any) -> dict[str, Any]:
    # Some tokens are made when the tests are collected: none may end before its test, or it would be refused for that.
    return {"sub": "anna", "exp": time.time() + 86_400, "channels": {"task:*": ["sub", "pub"]}, **more}


def part(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _confused(secret: bytes) -> str:
    """Signed with HMAC, and the public key for a secret."""
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    signature = jwt.algorithms.get_default_algorithms()["HS256"].sign(signed.encode(), secret)
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _unsigned(header: Any) -> str:
    return f"{part(header)}.{part(claims())}."


def _by_attacker(**header: Any) -> str:
    return jwt.encode(claims(), ATTACKER, "RS256", header)


def forgeries() -> dict[str, str]:
    """What it is -> the token."""
    good = token(**claims(sub="bob"))
    signed, _, signature = good.rpartition(".")
    other = token(channels={})
    deep = '{"a":' * 1000 + "1" + "}" * 1000
    return {
        "none": _unsigned({"alg": "none"}),
        "None": _unsigned({"alg": "None", "typ": "JWT"}),
        "none with a signature": f"{_unsigned({'alg': 'none'})}{signature}",
        "no algorithm": _unsigned({"typ": "JWT"}),
        "an empty algorithm": _unsigned({"alg": ""}),
        "a list of algorithms": _unsigned({"alg": ["HS256", "none"]}),
        "two algorithms": _unsigned('{"alg":"HS256","alg":"none"}'),
        "hs256": f"{part({'alg': 'hs256'})}.{part(claims())}.{signature}",
        "an algorithm that exists and is not ours": f"{part({'alg': 'HS1'})}.{part(claims())}.{signature}",
        "the public key as a secret": _confused(PEM),
        "the public key as a secret, stripped": _confused(PEM.strip()),
        "the public key as a secret, DER": _confused(DER),
        "an empty secret": _confused(b""),
        "the key of somebody else": _by_attacker(),
        "the name of our key": _by_attacker(kid="ours"),
        "a key that is a path": _by_attacker(kid="../../../../dev/null"),
        "a key that is a query": _by_attacker(kid="' UNION SELECT 'x"),
        "a key that comes along": _by_attacker(jwk=_JWK),
        "a URL of keys": _by_attacker(jku="http://127.0.0.1:9/keys"),
        "a URL of a certificate": _by_attacker(x5u="http://127.0.0.1:9/certificate"),
        "a certificate that comes along": _by_attacker(x5c=[base64.b64encode(DER).decode()]),
        "an unknown extension": jwt.encode(claims(), ATTACKER, "RS256", {"crit": ["exp"], "exp": 1}),
        "a payload that is not encoded": f"{part({'alg': 'HS256', 'b64': False})}.{part(claims())}.{signature}",
        "no signature": f"{signed}.",
        "half a signature": f"{signed}.{signature[:20]}",
        "the signature of another token": f"{signed}.{other.rpartition('.')[2]}",
        "junk in the signature": f"{signed}.{signature[:9]}!{signature[9:]}",
        "more padding": f"{good}====",
        "a second way to write the signature": good[:-1] + chr(ord(good[-1]) + 1),
        "a fourth part": f"{good}.{signature}",
        "an encrypted token": ".".join([part({"alg": "dir", "enc": "A128GCM"}), "", "a", "b", "c"]),
        "a header of brackets": f"{part('[' * 5000)}.{part(claims())}.{signature}",
        "a deep header": f"{part(deep)}.{part(claims())}.{signature}",
        "claims of brackets": f"{part({'alg': 'HS256'})}.{part('[' * 5000)}.{signature}",
        "a huge token": f"{good}{'A' * 9000}",
        "expired by a second": token(ends_in=-LEEWAY - 1, channels={"task:*": ["sub"]}),
        "not yet valid": token(nbf=time.time() + LEEWAY + 30),
        "from the future": token(iat=time.time() + LEEWAY + 30),
        "not signed by us": token(secret="another secret that is long enough"),
        "without an end": jwt.encode({"sub": "anna"}, "a secret that is long enough for SHA-256", "HS256"),
        "rubbish": "rubbish",
        "control characters": "a\x01b.\x1b[31m.c",
    }
