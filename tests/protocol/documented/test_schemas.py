"""The golden envelopes against the JSON Schema and the CDDL that docs/reference/protocol.md publishes."""

import json
from typing import Any

import cbor2
import pytest
from jsonschema import Draft202012Validator

from fanline.protocol.envelope import KEYS, MessageType
from tests.support.paths import REFERENCE
from tests.vectors import load, names

SCHEMA = json.loads((REFERENCE / "envelope.schema.json").read_text(encoding="utf-8"))
CDDL = (REFERENCE / "envelope.cddl").read_text(encoding="utf-8")
ENVELOPES = load("envelopes.json", "envelopes")
CONVERSIONS = load("envelopes.json", "conversions")
# pycddl 0.6 fails on a byte string where the CDDL wants one of several texts, and takes a list where it wants a map.
NOT_FOR_PYCDDL = {"type is a byte string", "extra attributes are a list"}
REFUSED = [
    row
    for row in load("refused.json", "refused")
    if row["by_schema"] and not (row["codec"] == "cbor" and row["name"] in NOT_FOR_PYCDDL)
]


def check(codec: str, payload: bytes) -> None:
    """Raise ValueError if the published schema of the codec refuses the message."""
    if codec == "cbor":
        pycddl = pytest.importorskip("pycddl", reason="pycddl has no wheel for this Python")
        try:
            pycddl.Schema(CDDL).validate_cbor(payload)
        except pycddl.ValidationError as error:
            raise ValueError(str(error)) from None
    else:
        errors = list(Draft202012Validator(SCHEMA).iter_errors(json.loads(payload)))
        if errors:
            raise ValueError(errors[0].message)


def test_the_json_schema_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("row", ENVELOPES, ids=names(ENVELOPES))
def test_every_golden_envelope_is_valid_in_both_schemas(row: Any) -> None:
    check("json", row["json"].encode())
    check("cbor", bytes.fromhex(row["cbor"]))


@pytest.mark.parametrize("row", CONVERSIONS, ids=names(CONVERSIONS))
def test_every_golden_conversion_is_valid_in_both_schemas(row: Any) -> None:
    check("json", row["json"].encode())
    check("cbor", bytes.fromhex(row["cbor"]))


@pytest.mark.parametrize("row", REFUSED, ids=[f"{row['codec']}: {row['name']}" for row in REFUSED])
def test_a_payload_of_the_wrong_shape_is_refused_by_its_schema(row: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        check(row["codec"], bytes.fromhex(row["payload"]))


def test_unknown_keys_are_valid() -> None:
    check("json", b'{"v":1,"t":"ping","later":{"x":[1]}}')
    check("cbor", cbor2.dumps({0: 1, 1: "ping", 17: {"x": [1]}, "later": 1}))


def test_the_schemas_name_every_type_and_every_field() -> None:
    assert set(SCHEMA["properties"]["t"]["enum"]) == set(MessageType)
    assert list(SCHEMA["properties"]) == [name for name, _ in KEYS.values()]
    for name, number in KEYS.values():
        assert any(f" {number} => " in line and f"; {name} " in line for line in CDDL.splitlines()), name
    assert all(f'"{kind}"' in CDDL for kind in MessageType)
