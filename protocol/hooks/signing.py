"""How the requests of webhooks are signed: Standard Webhooks (https://www.standardwebhooks.com), version 1."""

import base64
import binascii
import hmac
from collections.abc import Iterable
from hashlib import blake2s, sha256

_PREFIX = "whsec_"
_LEAST, _MOST = 24, 64  # bytes of a key


class BadSecretError(ValueError):
    """A text that is no secret; str() is one sentence without it."""


def key_of(secret: str) -> bytes:
    """The key that a secret stands for. BadSecretError."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not (secret.startswith(_PREFIX) and _LEAST <= len(key) <= _MOST):
        raise BadSecretError(f"expected {_PREFIX} and the base64 of {_LEAST} to {_MOST} random bytes")
    return key


def batch_id(event_ids: Iterable[str]) -> str:
    """The id of a request with these events: the same when they are sent again."""
    return f"batch_{blake2s(' '.join(event_ids).encode(), digest_size=16).hexdigest()}"


def signed_headers(key: bytes, request_id: str, unix_seconds: int, body: bytes) -> dict[str, str]:
    """The headers of a request."""
    signature = hmac.digest(key, f"{request_id}.{unix_seconds}.".encode() + body, sha256)
    return {
        "webhook-id": request_id,
        "webhook-timestamp": str(unix_seconds),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }
