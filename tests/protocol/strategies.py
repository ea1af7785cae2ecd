"""Values and envelopes for property tests."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from fanline.protocol.envelope import Envelope, MessageType
from fanline.protocol.errors import MessageError
from fanline.protocol.text import is_name

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
short_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=128)
names = short_texts.filter(is_name)
integers = st.integers(-(2**63), 2**64 - 1)
counts = st.integers(0, 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)


def _nested(scalars: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


json_values = _nested(st.none() | st.booleans() | integers | floats | texts, texts)
"""What both codecs can carry."""

cbor_values = _nested(
    st.none() | st.booleans() | integers | st.floats(allow_nan=True) | texts | st.binary(max_size=20), texts | integers
)
"""With what only CBOR can carry: byte strings, NaN, infinities, integer keys."""

extras = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,7}", fullmatch=True).filter(lambda key: key != "via"), json_values, max_size=4
).filter(lambda extra: len(json.dumps(extra)) <= 4096)
"""Extra attributes that every sender may write."""


def envelopes(
    data: st.SearchStrategy[Any] = json_values,
    types: st.SearchStrategy[str] | None = None,
    texts: st.SearchStrategy[str] = short_texts,
) -> st.SearchStrategy[Envelope]:
    """Envelopes with any mix of fields."""
    return st.builds(
        Envelope,
        type=st.sampled_from([str(kind) for kind in MessageType]) if types is None else types,
        channel=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
        offset=st.none() | counts,
        previous=st.none() | counts,
        epoch=st.none() | texts,
        id=st.none() | texts,
        event=st.none() | texts,
        data=data,
        sender=st.none() | texts,
        time=st.none() | counts,
        key=st.none() | texts,
        priority=st.none() | st.integers(0, 9),
        ttl=st.none() | st.integers(1, 2**31),
        extra=st.none() | extras,
        excluded=st.none() | texts,
        deduplication_id=st.none() | texts,
    )


def fields_of(envelope: Envelope) -> dict[str, Any]:
    """All fields by attribute name, with `data` as a Python value: equal for equal envelopes of any codec."""
    fields = {name: getattr(envelope, name) for name in Envelope.__struct_fields__}
    return {**fields, "data": envelope.value}


def refusal(take: Callable[[Any], object], value: Any) -> MessageError | None:
    """Why `take` refuses the value; None if it accepts it. Any other exception fails the test."""
    try:
        take(value)
    except MessageError as error:
        return error
    return None


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """A valid message with a few bytes changed, cut out or put in."""
    payload = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(payload)


@st.composite
def chunked(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """`whole` cut anywhere, empty chunks included."""
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
