"""The wording of errors about settings: what is accepted, and which name was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import inspect

from fanline.workers.errors import SettingsError

REFERENCE = "docs/reference/settings.md"


def read_value(struct: type[msgspec.Struct], key: str, value: object, where: str) -> Any:
    """The value of a key in a table of the file, in the type of its field. Raises SettingsError."""
    fields = field_types(struct)
    if key not in fields:
        raise SettingsError(f"unknown setting {key} in {where}; {suggest(key, fields)}")
    try:
        return msgspec.convert(value, fields[key])
    except msgspec.ValidationError:
        expected = describe_type(fields[key])
        raise SettingsError(f"bad value for {key} in {where} ({value!r}): expected {expected}") from None


def suggest(unknown: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a sentence about an unknown name. `prefix` is common to all names and left out of the comparison."""
    nearest = get_close_matches(unknown.removeprefix(prefix), [name.removeprefix(prefix) for name in known], n=1)
    return f"did you mean {prefix}{nearest[0]}?" if nearest else f"all settings are in {REFERENCE}"


def describe_type(annotation: Any) -> str:
    """What a setting accepts, as in "a whole number, at least 0, at most 65535"."""
    info = inspect.type_info(annotation)
    if isinstance(info, inspect.EnumType):
        return " or ".join(f'"{member.value}"' for member in info.cls)
    if isinstance(info, inspect.BoolType):
        return "true or false"
    if isinstance(info, inspect.VarTupleType):
        assert isinstance(info.item_type, inspect.Metadata)
        return f"a list of {(info.item_type.extra_json_schema or {})['description']}"
    words = {"gt": "over", "ge": "at least", "le": "at most"}
    bounds = [f"{words[name]} {value}" for name in words if (value := getattr(info, name, None)) is not None]
    if (most := getattr(info, "max_length", None)) is not None:
        bounds.append(f"at most {most} characters")
    nouns = {inspect.IntType: "a whole number", inspect.FloatType: "a number"}
    text = "text, not empty" if getattr(info, "min_length", None) else "text"
    return ", ".join([nouns.get(type(info), text), *bounds])


def is_list(annotation: Any) -> bool:
    """Whether a setting takes several values."""
    return isinstance(inspect.type_info(annotation), inspect.VarTupleType)


def field_types(struct: type[msgspec.Struct], prefix: str = "") -> dict[str, Any]:
    """Setting name -> type."""
    return {prefix + field.name: field.type for field in msgspec.structs.fields(struct)}
