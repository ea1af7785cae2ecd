"""How the requests of webhooks are signed: Standard Webhooks (https://www.standardwebhooks.com), version 1."""

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from hashlib import blake2s, sha256

_PREFIX = "whsec_"
_LEAST, _MOST = 24, 64  # bytes of a key
_MOST_DIGITS = 15
TOLERANCE = 300
"""Seconds by which the time of a request may differ: a request that was seen cannot be replayed for longer."""


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


class BadSignatureError(ValueError):
    """A request that the server has not made, or not just now; str() is one sentence."""


def batch_id(event_ids: Iterable[str]) -> str:
    """The id of a request with these events: the same when they are sent again."""
    return f"batch_{blake2s(' '.join(event_ids).encode(), digest_size=16).hexdigest()}"


def signed_headers(key: bytes, request_id: str, unix_seconds: int, body: bytes) -> dict[str, str]:
    """The headers of a request."""
    return {
        "webhook-id": request_id,
        "webhook-timestamp": str(unix_seconds),
        "webhook-signature": _signature(key, request_id, str(unix_seconds), body),
    }


def check_signed(key: bytes, headers: Mapping[str, str], body: bytes, unix_seconds: float) -> None:
    """Raises BadSignatureError if the headers, with names in lower case, are not those of this body, or not of now."""
    request_id, time, signatures = (headers.get(f"webhook-{name}") or "" for name in ("id", "timestamp", "signature"))
    if not (time.isascii() and time.isdigit() and len(time) < _MOST_DIGITS):
        raise BadSignatureError("the request has no webhook-timestamp")
    if abs(unix_seconds - int(time)) > TOLERANCE:
        raise BadSignatureError(f"the request is from another time than the last {TOLERANCE} seconds")
    expected = _signature(key, request_id, time, body).encode()
    if not any(hmac.compare_digest(each.encode(), expected) for each in signatures.split(" ")):
        raise BadSignatureError("the signature of the request is not that of its body with this secret")


def _signature(key: bytes, request_id: str, time: str, body: bytes) -> str:
    digest = hmac.digest(key, f"{request_id}.{time}.".encode() + body, sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
