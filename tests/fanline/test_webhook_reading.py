"""`fanline.hooks.read_webhook`: only what the server has signed just now."""

import json
import re
import time
from typing import Any

import pytest

from fanline.hooks import BadEventError, BadSignatureError, read_webhook
from fanline.protocol.hooks.signing import TOLERANCE, key_of, signed_headers
from tests.support.paths import ROOT

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVENT = {"version": 1, "id": "e1", "type": "order_paid", "timestamp": "t", "source": "handlers", "data": {"order": 7}}
BODY = json.dumps({"events": [EVENT, {**EVENT, "id": "e2", "new_field": 1}]}).encode()


def is_genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """What the how-to has a receiver ask that does not use `fanline`."""
    page = (ROOT / "docs" / "how-to" / "react-to-what-happens.md").read_text(encoding="utf-8")
    (code,) = (each for each in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "hmac" in each)
    names = dict[str, Any]()
    exec(code, names)  # our own page
    return bool(names["is_genuine"](secret, headers, body))


def headers(body: bytes = BODY, age: float = 0.0, secret: str = SECRET) -> dict[str, str]:
    return signed_headers(key_of(secret), "batch_1", int(time.time() - age), body)


def test_events_of_a_signed_request_are_read_in_order() -> None:
    first, second = read_webhook(BODY, headers(), SECRET)
    assert (first.id, first.type, first.data, second.id) == ("e1", "order_paid", {"order": 7}, "e2")
    several = headers()
    several["webhook-signature"] = f"v1,b2xk {several['webhook-signature']} v2,x"  # as while a secret is changed
    assert len(read_webhook(BODY, several, SECRET)) == 2
    assert is_genuine(SECRET, several, BODY)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "v1,", "1", "é", "9" * 400])
def test_a_request_with_another_header_is_refused(name: str, value: str | None) -> None:
    changed = {key: each for key, each in headers().items() if key != name} | ({name: value} if value else {})
    with pytest.raises(BadSignatureError):
        read_webhook(BODY, changed, SECRET)
    assert not is_genuine(SECRET, changed, BODY)


@pytest.mark.parametrize("age", [TOLERANCE + 5, -TOLERANCE - 5])
def test_an_old_request_is_refused(age: float) -> None:
    with pytest.raises(BadSignatureError, match="another time"):
        read_webhook(BODY, headers(age=age), SECRET)
    assert not is_genuine(SECRET, headers(age=age), BODY)


def test_another_body_or_secret_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        read_webhook(BODY + b" ", headers(), SECRET)
    assert not is_genuine(SECRET, headers(), BODY + b" ")
    with pytest.raises(BadSignatureError):
        read_webhook(BODY, headers(secret="whsec_" + "A" * 32), SECRET)
    with pytest.raises(ValueError, match="expected whsec_"):
        read_webhook(BODY, headers(), "secret")


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"\xff", b'{"events":[{}]}'])
def test_what_is_signed_and_no_list_of_events_is_refused(body: bytes) -> None:
    with pytest.raises(BadEventError):
        read_webhook(body, headers(body), SECRET)
