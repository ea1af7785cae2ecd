"""The files that a client logs in with: creds, nkeys and certificates. What cannot be used is one sentence."""

import base64
import itertools
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import nkeys
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.nats.addresses import NatsAddress, parse_url
from fanline.protocol.nats.commands import Login
from fanline.protocol.nats.credentials import _login_by_creds, _login_by_nkey, login_of, tls_context
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError
from tests.support.nats.operator import Operator, creds_file, user_key

ADDRESS = NatsAddress("localhost", 4222)
KEY = user_key()
JWT = Operator().creds().splitlines()[1]
CREDS = creds_file(JWT, KEY.seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def log_in(login: Callable[[str], Login], path: Path, text: str) -> Login:
    path.write_text(text, encoding="utf-8")
    return login(str(path))


def is_signature_of(key: str, nonce: bytes, signature: str) -> bool:
    padded = signature + "=" * (-len(signature) % 4)
    return bool(nkeys.from_seed(key.encode()).verify(nonce, base64.urlsafe_b64decode(padded)))


# --- which login --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "login"),
    [
        ("h", {}, Login()),
        ("t@h", {}, Login(token="t")),
        ("u:p@h", {}, Login("u", "p")),
        ("h", {"token": "t"}, Login(token="t")),
        ("h", {"user": "u", "password": "p"}, Login("u", "p")),
        ("u:p@h", {"token": "t"}, Login("u", "p")),
        ("t@h", {"user": "u", "password": "p"}, Login(token="t")),
    ],
)
def test_what_a_url_says_comes_before_what_the_options_say(url: str, options: dict[str, str], login: Login) -> None:
    assert login_of(NatsOptions((url,), **options), parse_url(url)) == login


@pytest.mark.parametrize("option", ["creds", "nkey"])
def test_a_key_comes_before_a_password(option: str, path: Path) -> None:
    path.write_text(CREDS)
    options = NatsOptions(("u:p@h",), user="u", password="p", token="t", **{option: str(path)})
    login = login_of(options, parse_url("u:p@h"))
    assert login.nkey == KEY.public
    assert (login.user, login.password, login.token) == ("", "", "")


def test_a_creds_file_comes_before_an_nkey(path: Path) -> None:
    path.write_text(CREDS)
    assert login_of(NatsOptions(("h",), creds=str(path), nkey="missing"), ADDRESS).jwt == JWT


# --- creds files and seeds ----------------------------------------------------------------------------------------

WRITTEN_SO = {
    "by nsc": CREDS,
    "with CR LF": CREDS.replace("\n", "\r\n"),
    "with a byte order mark": "\ufeff" + CREDS,
    "without a last line end": CREDS.strip(),
    "seed first": "\n".join((*CREDS.splitlines()[8:], *CREDS.splitlines()[:3])),
    "with as many dashes on either side": CREDS.replace("------END", "-----END").replace("------\n", "-----\n"),
    "with six dashes everywhere": CREDS.replace("-----BEGIN", "------BEGIN").replace("-----\n", "------\n"),
    "with three dashes": CREDS.replace("------", "---").replace("-----", "---"),
    "with blank lines and indented": CREDS.replace("\n", "\n\n  "),
}


@pytest.mark.parametrize("text", WRITTEN_SO.values(), ids=WRITTEN_SO)
def test_a_creds_file_gives_the_jwt_and_a_key_that_signs(text: str, path: Path) -> None:
    login = log_in(_login_by_creds, path, text)
    assert (login.jwt, login.nkey) == (JWT, KEY.public)
    assert login.sign is not None
    assert is_signature_of(KEY.seed, b"nonce", login.sign(b"nonce"))


NKEY_FILES = {
    "bare": KEY.seed,
    "by nk": KEY.seed + "\n",
    "by nk -pubout": f"{KEY.seed}\n{KEY.public}\n",
    "with blanks": f"  {KEY.seed}\r\n",
    "decorated": CREDS[CREDS.index("-----BEGIN USER") :],
    "a creds file": CREDS,
}


@pytest.mark.parametrize("text", NKEY_FILES.values(), ids=NKEY_FILES)
def test_an_nkey_file_gives_a_key_that_signs(text: str, path: Path) -> None:
    login = log_in(_login_by_nkey, path, text)
    assert (login.jwt, login.nkey) == ("", KEY.public)
    assert login.sign is not None
    assert is_signature_of(KEY.seed, b"nonce", login.sign(b"nonce"))


def test_a_signature_has_no_padding_and_is_safe_in_a_url(path: Path) -> None:
    login = log_in(_login_by_nkey, path, KEY.seed)
    assert login.sign is not None
    for number in range(50):
        assert not set("+/=") & set(login.sign(b"%d" % number))


def test_a_renewed_creds_file_is_read_for_the_next_login(path: Path) -> None:
    path.write_text(CREDS)
    options = NatsOptions(("h",), creds=str(path))
    assert login_of(options, ADDRESS).jwt == JWT
    path.write_text(creds_file("renewed", KEY.seed))
    assert login_of(options, ADDRESS).jwt == "renewed"


def mistyped(seed: str) -> str:
    return seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:]


NOT_SEEDS = {
    "nothing": "",
    "another text": "not a seed",
    "too short": "SU",
    "mistyped": mistyped(KEY.seed),
    "cut": KEY.seed[:-1],
    "too long": KEY.seed + "A" * 8,
    "lower case": KEY.seed.lower(),
    "a public key": KEY.public,
    "not ASCII": "SU\u00e9" + KEY.seed[3:],
}


@pytest.mark.parametrize("seed", NOT_SEEDS.values(), ids=NOT_SEEDS)
@pytest.mark.parametrize("login", [_login_by_creds, _login_by_nkey])
def test_a_seed_that_is_none_is_one_sentence_that_names_the_file(
    login: Callable[[str], Login], seed: str, path: Path
) -> None:
    with pytest.raises(NatsError, match="does not hold") as caught:
        log_in(login, path, creds_file(JWT, seed) if login is _login_by_creds else seed)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert KEY.seed[4:20] not in str(caught.value)  # a log is no place for most of a seed


@pytest.mark.parametrize(
    "text", ["", "nonsense", JWT, CREDS[: CREDS.index("---BEGIN USER")], CREDS[CREDS.index("***") :], CREDS[:40]]
)
def test_a_creds_file_without_jwt_or_seed_is_one_sentence_that_names_the_file(text: str, path: Path) -> None:
    with pytest.raises(NatsError, match="does not hold a user JWT and its seed") as caught:
        log_in(_login_by_creds, path, text)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("option", ["creds", "nkey"])
@pytest.mark.parametrize("kind", ["missing", "a directory", "unreadable", "binary", "no path"])
def test_a_file_that_cannot_be_read_is_one_sentence_that_names_it(option: str, kind: str, path: Path) -> None:
    name = "no\0path" if kind == "no path" else str(path)
    if kind == "a directory":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe" + bytes(range(256)))
    elif kind == "unreadable":
        path.symlink_to(path)
    with pytest.raises(NatsError, match="cannot read the NATS credentials") as caught:
        login_of(NatsOptions(("h",), **{option: name}), ADDRESS)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


PARTS = (*"-BEGINUSRKYD \n\r", JWT, KEY.seed, "-----BEGIN USER NKEY SEED-----", *CREDS.splitlines(keepends=True))


@given(parts=st.lists(st.sampled_from(PARTS), max_size=12))
def test_any_text_is_credentials_or_a_nats_error(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any text"
    for login in (_login_by_creds, _login_by_nkey):
        with suppress(NatsError):
            assert log_in(login, path, "".join(parts)).nkey == KEY.public


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def test_the_authority_and_the_certificate_of_the_options_are_used(authority: trustme.CA, tmp_path: Path) -> None:
    ca, chain, key = (str(tmp_path / name) for name in ("ca", "chain", "key"))
    certificate = authority.issue_cert("client")
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    context = tls_context(NatsOptions(("h",), tls_ca=ca, tls_cert=chain, tls_key=key))
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    certificate.private_key_and_cert_chain_pem.write_to_path(chain)
    assert tls_context(NatsOptions(("h",), tls_ca=ca, tls_cert=chain))


def test_without_an_authority_those_of_the_system_are_trusted_and_names_are_checked() -> None:
    context = tls_context(NatsOptions(("tls://h",)))
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def encrypted(certificate: trustme.LeafCert) -> bytes:
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    how = serialization.BestAvailableEncryption(b"word")
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


DAMAGED = [
    *itertools.product(("tls_ca", "tls_cert", "tls_key"), ("missing", "empty", "text", "a directory")),
    ("tls_key", "another key"),
    ("tls_key", "encrypted"),
]


@pytest.mark.parametrize(("wrong", "kind"), DAMAGED)
def test_tls_files_that_cannot_be_used_are_one_sentence_that_names_them(
    authority: trustme.CA, tmp_path: Path, wrong: str, kind: str
) -> None:
    paths = {name: str(tmp_path / name) for name in ("tls_ca", "tls_cert", "tls_key")}
    certificate = authority.issue_cert("client")
    authority.cert_pem.write_to_path(paths["tls_ca"])
    certificate.cert_chain_pems[0].write_to_path(paths["tls_cert"])
    certificate.private_key_pem.write_to_path(paths["tls_key"])
    damaged = Path(paths[wrong])
    damaged.unlink()
    if kind == "a directory":
        damaged.mkdir()
    elif kind != "missing":
        other = authority.issue_cert("other").private_key_pem.bytes()
        content = {"empty": b"", "text": b"text", "another key": other, "encrypted": encrypted(certificate)}
        damaged.write_bytes(content[kind])
    with pytest.raises(NatsError, match="the TLS files for NATS cannot be used") as caught:
        tls_context(NatsOptions(("h",), **paths))
    assert paths[wrong] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kind != "encrypted" or "encrypted" in str(caught.value)  # and nobody is asked at the terminal


# --- options ------------------------------------------------------------------------------------------------------


def test_options_are_described_without_credentials() -> None:
    options = NatsOptions(("nats://u:secret@one:1", "secret@two", "tls://[::1]:3"), password="secret", token="secret")
    assert options.describe() == "one:1, two:4222, [::1]:3"


@pytest.mark.parametrize(
    ("options", "tls"),
    [
        ({}, False),
        ({"tls_ca": "x"}, True),
        ({"tls_cert": "x"}, True),
        ({"tls_key": "x"}, False),
        ({"creds": "x"}, False),
    ],
)
def test_an_authority_or_a_certificate_require_tls(options: dict[str, str], tls: bool) -> None:
    assert NatsOptions(("h",), **options).tls is tls
