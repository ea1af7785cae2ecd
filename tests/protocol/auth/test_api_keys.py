"""A key of the management API: one way to write it, a digest in its place, and rights that hold others."""

import msgspec
import pytest

from fanline.protocol.auth.api_keys import (
    ID_CHARACTERS,
    SECRET_CHARACTERS,
    ApiKey,
    ApiRight,
    digest_of,
    key_text,
    may,
    read_key,
)

ID, SECRET = "0123456789ab", "x" * SECRET_CHARACTERS


def test_a_key_reads_as_it_was_written() -> None:
    assert read_key(key_text(ID, SECRET)) == (ID, SECRET)
    assert len(ID) == ID_CHARACTERS


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"fl_{ID}_{SECRET}x",
        f"fl_{ID}_{SECRET[1:]}",
        f"fl_{ID[1:]}_{SECRET}",
        f"fl_{ID.upper()}_{SECRET}",
        f"xl_{ID}_{SECRET}",
        f"fl_{ID}_{SECRET}\n",
        f" fl_{ID}_{SECRET}",
        f"fl_{ID}-{SECRET}",
    ],
)
def test_anything_else_is_no_key(text: str) -> None:
    assert read_key(text) is None


def test_a_key_accepts_its_own_secret_until_it_expires() -> None:
    key = ApiKey(name="n", rights=(ApiRight.READ,), digest=digest_of(SECRET), created=0.0, expires=10.0)
    assert key.accepts(SECRET, 9.9)
    assert not key.accepts(SECRET, 10.0)
    assert not key.accepts("y" * SECRET_CHARACTERS, 5.0)
    assert msgspec.structs.replace(key, expires=None).accepts(SECRET, 1e12)
    assert SECRET not in msgspec.json.encode(key).decode()


def test_admin_holds_every_right_and_read_holds_metrics_alone() -> None:
    for right in ApiRight:
        assert may(frozenset((ApiRight.ADMIN,)), right)
        assert may(frozenset((right,)), right)
        assert not may(frozenset(), right)
        assert may(frozenset((ApiRight.READ,)), right) is (right in (ApiRight.READ, ApiRight.METRICS))
    key = ApiKey(name="n", rights=(ApiRight.TASKS,), digest="", created=0.0)
    assert (key.may(ApiRight.TASKS), key.may(ApiRight.READ)) == (True, False)
