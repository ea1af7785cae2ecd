"""What a client presents to a NATS server: its login and its TLS certificate, from the files that its options name.

The one module of the protocol that reads files. They are read again for each connection, because a creds file or a
certificate may be renewed while the program runs.
"""

import base64
import re
import ssl
from collections.abc import Callable
from pathlib import Path

from fanline.protocol.nats.addresses import NatsAddress
from fanline.protocol.nats.commands import Login
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.nats.parser import NatsError

_BLOCK = re.compile(r"-{3,}BEGIN ([A-Z ]+?)-{3,}\s*(\S+)\s*-{3,}END")


def login_of(options: NatsOptions, address: NatsAddress) -> Login:
    """The login for one server: what its URL says, else what the options say. Raises NatsError naming the file that
    cannot be used.
    """
    if options.creds:
        return _login_by_creds(options.creds)
    if options.nkey:
        return _login_by_nkey(options.nkey)
    if address.token or address.user:
        return Login(address.user, address.password, address.token)
    return Login(options.user, options.password, options.token)


def tls_context(options: NatsOptions) -> ssl.SSLContext:
    """Trusts the authority that the options name, else those of the system. Raises NatsError naming the files."""
    try:
        context = ssl.create_default_context(cafile=options.tls_ca or None)
        if options.tls_cert:
            context.load_cert_chain(options.tls_cert, options.tls_key or None, password=_refuse_password)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (options.tls_ca, options.tls_cert, options.tls_key)))
        raise NatsError(f"the TLS files for NATS cannot be used ({files}): {error}") from None
    return context


def _refuse_password() -> str:
    """Instead of OpenSSL, which would ask at the terminal."""
    raise OSError("the private key is encrypted")


def _login_by_creds(path: str) -> Login:
    """Format: docs.nats.io, "Credentials files"."""
    blocks = _blocks(_read(path))
    jwt, seed = blocks.get("NATS USER JWT"), _seed_of(blocks)
    if not jwt or not seed:
        raise NatsError(f"the creds file {path} does not hold a user JWT and its seed")
    public, sign = _signer(seed, path)
    return Login(jwt=jwt, nkey=public, sign=sign)


def _login_by_nkey(path: str) -> Login:
    """A bare seed, as `nk` writes it, or one between BEGIN and END as in a creds file."""
    text = _read(path)
    bare = next((word for word in text.split() if word.startswith("S")), "")
    public, sign = _signer(_seed_of(_blocks(text)) or bare, path)
    return Login(nkey=public, sign=sign)


def _blocks(text: str) -> dict[str, str]:
    return dict(_BLOCK.findall(text))


def _seed_of(blocks: dict[str, str]) -> str:
    return next((value for name, value in blocks.items() if name.endswith("SEED")), "")


def _signer(seed: str, path: str) -> tuple[str, Callable[[bytes], str]]:
    import nkeys  # loads a C library, which only those who log in with a key should pay for

    try:
        kind, raw = nkeys.decode_seed(seed.encode())
        if nkeys.encode_seed(raw, kind) != seed.encode():  # `from_seed` does not look at the checksum
            raise nkeys.ErrInvalidSeed
        keys = nkeys.from_seed(seed.encode())
        public = keys.public_key.decode()
    except (nkeys.NkeysError, ValueError) as error:
        raise NatsError(f"{path} does not hold the seed of an nkey: {error}") from None

    def sign(nonce: bytes) -> str:
        return base64.urlsafe_b64encode(keys.sign(nonce)).rstrip(b"=").decode()

    return public, sign


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # UnicodeDecodeError is one
        raise NatsError(f"cannot read the NATS credentials {path}: {error}") from None
