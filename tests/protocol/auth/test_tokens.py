"""Tokens: what a good one says, and that no bad one passes or shows anything of itself."""

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from fanline.protocol.auth.claims import TokenError, read_claims
from fanline.protocol.auth.public_keys import pem_key, read_key_set
from fanline.protocol.auth.rights import Right
from fanline.protocol.auth.tokens import (
    MAX_TOKEN_BYTES,
    TokenRules,
    UnusableKeyError,
    VerifyingKey,
    secret_key,
    sign,
    verify,
)

SECRET = "a secret that is long enough for SHA-256"
NOW = 1_800_000_000.0
RULES = TokenRules()
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> bytes:
    found: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return found


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "anna", "exp": NOW + 60, **more}


def token(**more: Any) -> str:
    return sign(claims(**more), SECRET.encode())


def check(text: str, *keys: VerifyingKey, rules: TokenRules = RULES, now: float = NOW) -> Any:
    return verify(text, keys or [secret_key(SECRET)], rules, now)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_good_token_says_who_and_what() -> None:
    found = check(token(roles=["admin"], channels={"task:*": ["sub", "cancel"]}, jti="t1", username="Anna", other=[1]))
    assert (found.sub, found.roles, found.jti, found.username) == ("anna", ("admin",), "t1", "Anna")
    assert found.grants() == [("task:*", Right.SUB | Right.CANCEL)]


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "EdDSA")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_public_key_verifies_the_algorithms_of_its_kind(private: Any, algorithm: str) -> None:
    text = jwt.encode(claims(), private, algorithm)
    assert check(text, pem_key(pem(private))).sub == "anna"
    for other in (RSA, EC, ED):
        if other is not private:
            with pytest.raises(TokenError):
                check(text, pem_key(pem(other)))


def test_a_token_without_a_signature_never_passes() -> None:
    for header in ({"alg": "none"}, {"alg": "None"}, {"alg": "NONE", "typ": "JWT"}, {"typ": "JWT"}, {"alg": None}):
        for signature in ("", token().rpartition(".")[2]):
            with pytest.raises(TokenError):
                check(f"{part(header)}.{part(claims())}.{signature}")


def test_a_public_key_is_never_taken_for_a_secret() -> None:
    # The classical confusion: an attacker signs with HMAC, using the public key's text as the secret.
    for text in (pem(RSA), pem(RSA).strip(), pem(EC)):
        header, payload = part({"alg": "HS256", "typ": "JWT"}), part(claims())
        forged = jwt.api_jws.PyJWS().get_algorithm_by_name("HS256")
        signature = forged.sign(f"{header}.{payload}".encode(), text)
        encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
        with pytest.raises(TokenError, match="not known"):
            check(f"{header}.{payload}.{encoded}", pem_key(pem(RSA)), pem_key(pem(EC)))
        with pytest.raises(UnusableKeyError):
            secret_key(text.decode())


def test_a_token_is_verified_with_the_key_that_it_names() -> None:
    first, second = secret_key("x" * 32)._replace(id="1"), secret_key("y" * 32)._replace(id="2")
    text = jwt.encode(claims(), b"y" * 32, "HS256", {"kid": "2"})
    assert check(text, first, second).sub == "anna"
    for name in ("1", "3", "", "../../dev/null"):
        with pytest.raises(TokenError):
            check(jwt.encode(claims(), b"y" * 32, "HS256", {"kid": name}), first, second)
    with pytest.raises(TokenError):  # names none, and there is a choice
        check(jwt.encode(claims(), b"y" * 32, "HS256"), first, second)


def test_keys_that_the_token_brings_along_are_not_used() -> None:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key()))
    for header in ({"jwk": public}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/c"}):
        with pytest.raises(TokenError):
            check(jwt.encode(claims(), RSA, "RS256", header))


@pytest.mark.parametrize(
    ("said", "now", "refusal"),
    [
        ({"exp": NOW}, NOW + 9.9, None),
        ({"exp": NOW}, NOW + 10, "the token has expired"),
        ({"nbf": NOW}, NOW - 10, None),
        ({"nbf": NOW}, NOW - 10.1, "the token is not valid yet"),
        ({"iat": NOW}, NOW - 10, None),
        ({"iat": NOW}, NOW - 10.1, "the token was issued in the future"),
        ({"iat": NOW - 1e9, "exp": NOW + 1e9}, NOW, None),
    ],
)
def test_times_count_with_the_leeway(said: dict[str, float], now: float, refusal: str | None) -> None:
    text = token(**said)
    if refusal is None:
        assert check(text, now=now).sub == "anna"
    else:
        with pytest.raises(TokenError, match=f"^{refusal}$"):
            check(text, now=now)


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": -1},
        {"exp": 1e300},
        {"exp": True},
        {"sub": 42},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "\x1b[31m"},
        {"sub": "x" * 129},
        {"roles": "admin"},
        {"roles": ["x"] * 33},
        {"channels": ["task:*"]},
        {"channels": {"task:*": "sub"}},
        {"channels": {f"task:{n}": ["sub"] for n in range(257)}},
        {"nbf": "x"},
        {"iat": {}},
        {"connections": 0},
        {"username": ["Anna"]},
    ],
    ids=str,
)
def test_a_claim_of_another_type_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    name = next(iter(wrong))
    said = {key: value for key, value in claims(**wrong).items() if value is not None}
    with pytest.raises(TokenError, match=name):
        check(sign(said, SECRET.encode()))


@pytest.mark.parametrize("channels", [{"task:*": ["read"]}, {"Task": ["sub"]}, {"": ["sub"]}, {"task:>": ["sub"]}])
def test_a_grant_that_cannot_be_read_is_refused_and_not_left_out(channels: dict[str, list[str]]) -> None:
    with pytest.raises(TokenError, match="channels"):
        check(token(channels=channels)).grants()


def test_claims_are_read_before_they_are_signed_as_they_are_afterwards() -> None:
    assert read_claims(claims(roles=["admin"])) == check(token(roles=["admin"]))
    with pytest.raises(TokenError, match="exp"):
        read_claims({"sub": "anna"})


@pytest.mark.parametrize("claim", ["sub", "jti", "username"])
def test_a_claim_that_no_text_can_hold_is_refused(claim: str) -> None:
    with pytest.raises(TokenError, match="claims"):
        check(token(**{claim: "\ud800"}))


def test_audience_and_issuer_count_if_they_are_configured() -> None:
    rules = TokenRules("fanline", "https://id.example")
    good = {"aud": ["other", "fanline"], "iss": "https://id.example"}
    assert check(token(**good), rules=rules).sub == "anna"
    assert check(token(**(good | {"aud": "fanline"})), rules=rules).sub == "anna"
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"aud": "not-fanline"}, "the token is for another audience"),
        ({"aud": "other"}, "the token is for another audience"),
        ({"iss": "https://evil.example"}, "the token is from another issuer"),
        ({"aud": None}, "the token has no claim aud"),
        ({"iss": None}, "the token has no claim iss"),
    ]
    for wrong, refusal in refusals:
        said = {key: value for key, value in claims(**(good | wrong)).items() if value is not None}
        with pytest.raises(TokenError, match=f"^{refusal}$"):
            check(sign(said, SECRET.encode()), rules=rules)


HEADERS: list[Any] = [
    [],
    1,
    None,
    {"alg": 7},
    {"alg": "HS256", "kid": 1},
    {"alg": "HS256"},
    {"alg": "HS256", "crit": ["b64"]},
]
NO_TOKENS = ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "\x00.\x00.\x00", "ä.ö.ü", "x" * (MAX_TOKEN_BYTES + 1)]


@pytest.mark.parametrize("text", [*NO_TOKENS, *(f"{part(header)}.{part({})}.x" for header in HEADERS)])
def test_what_is_no_token_is_refused_in_a_sentence_without_the_token(text: str) -> None:
    with pytest.raises(TokenError) as raised:
        check(text)
    assert len(text) < 3 or text not in str(raised.value)


def test_a_refusal_shows_nothing_of_the_token() -> None:
    text = token(sub="a-private-name", exp=NOW - 100)
    with pytest.raises(TokenError) as raised:
        check(text)
    for secret in ("a-private-name", *text.split(".")):
        assert secret not in str(raised.value)


def test_every_changed_character_is_noticed() -> None:
    text = token()
    for place in range(len(text) - 1):  # of the last one some bits are padding
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(TokenError):
            check(changed)


@pytest.mark.parametrize("change", ["{}!", "{}====", " {}", "{}\n", "{}=", "\t{}"])
def test_a_token_has_no_second_spelling(change: str) -> None:
    for place in range(3):
        parts = token().split(".")
        parts[place] = change.format(parts[place])
        if change == "{}=" and len(parts[place]) % 4 == 0:
            continue  # some issuers pad
        with pytest.raises(TokenError):
            check(".".join(parts))


def test_what_is_a_key_of_another_kind_is_no_secret() -> None:
    for text in (pem(RSA).decode(), f" \n{pem(EC).decode()}", "ssh-rsa AAAA" * 9, json.dumps(jwk(RSA.public_key()))):
        with pytest.raises(UnusableKeyError, match="not a secret"):
            secret_key(text)


# --- keys ---------------------------------------------------------------------------------------------------------


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    kinds: dict[type, Any] = {
        rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PublicKey: jwt.algorithms.OKPAlgorithm,
    }
    (kind,) = [kind for kind_of_key, kind in kinds.items() if isinstance(key, kind_of_key)]
    return {**json.loads(kind.to_jwk(key)), **more}


def test_a_key_set_is_read() -> None:
    document = {"keys": [jwk(RSA.public_key(), kid="r"), jwk(EC.public_key(), kid="e"), jwk(ED.public_key(), kid="d")]}
    keys = read_key_set(json.dumps(document).encode())
    for private, algorithm, name in ((RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")):
        assert check(jwt.encode(claims(), private, algorithm, {"kid": name}), *keys).sub == "anna"


def test_a_key_set_that_lies_gives_no_keys() -> None:
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "s", "alg": "HS256"}
    small = rsa.generate_private_key(65537, 1024)
    lies = [
        secret,
        jwk(RSA.public_key(), alg="HS256"),
        jwk(RSA.public_key(), alg="none"),
        jwk(RSA.public_key(), alg="ES256"),
        jwk(RSA.public_key(), use="enc"),
        jwk(RSA.public_key(), kid=7),
        jwk(small.public_key()),
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-999", "x": "AA", "y": "AA"},
        {"kty": ["RSA"]},
        "key",
        None,
    ]
    assert read_key_set(json.dumps({"keys": lies}).encode()) == []


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"keys": {}}', b'{"keys": 1}', b"\xff", b"[" * 5000])
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(UnusableKeyError):
        read_key_set(document)


def test_a_private_key_is_refused_where_a_public_one_belongs() -> None:
    private = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text in (private, b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(UnusableKeyError):
            pem_key(text)


@pytest.mark.parametrize("secret", ["", "short", "x" * 31])
def test_a_secret_that_can_be_guessed_is_refused(secret: str) -> None:
    with pytest.raises(UnusableKeyError, match="32"):
        secret_key(secret)
