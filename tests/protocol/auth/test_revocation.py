"""Which tokens a revocation takes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.protocol.auth.revocation import Revocation, decode_revocation, encode_revocation

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
TIMES = st.floats(0, 1e12)


@pytest.mark.parametrize(
    ("revocation", "covered", "spared"),
    [
        (
            Revocation(token_id="t", before=100, until=200),
            [("a", "t", 150.0), (None, "t", None)],
            [("a", "u", 1.0), ("a", None, 1.0)],
        ),
        (
            Revocation(user="a", before=100, until=200),
            [("a", "t", 99.0), ("a", None, None)],
            [("a", "t", 100.0), ("b", None, 1.0), (None, None, 1.0)],
        ),
        (Revocation(before=100, until=200), [("a", "t", 99.0), (None, None, None)], [("a", "t", 100.0)]),
    ],
)
def test_a_revocation_covers_its_tokens_and_no_others(
    revocation: Revocation,
    covered: list[tuple[str | None, str | None, float | None]],
    spared: list[tuple[str | None, str | None, float | None]],
) -> None:
    assert [token for token in covered if not revocation.covers(*token)] == []
    assert [token for token in spared if revocation.covers(*token)] == []


@given(st.none() | NAMES, st.none() | NAMES, TIMES, TIMES)
def test_a_revocation_survives_its_bucket(user: str | None, token_id: str | None, before: float, until: float) -> None:
    revocation = Revocation(user=user, token_id=token_id, before=before, until=until)
    assert decode_revocation(encode_revocation(revocation)) == revocation
    assert all(part.isalnum() for part in revocation.key.split("."))


@given(NAMES, NAMES)
def test_two_names_have_two_keys(one: str, other: str) -> None:
    keys = {Revocation(user=one, before=0, until=0).key, Revocation(token_id=one, before=0, until=0).key}
    keys |= {Revocation(user=other, before=0, until=0).key, Revocation(token_id=other, before=0, until=0).key}
    assert len(keys) == (2 if one == other else 4)
