"""Every call of the management API, as its OpenAPI has it, with a body that it takes: a new call joins by itself."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from fanline.protocol.auth.api_keys import ApiRight
from fanline.workers.control.app import PREFIX
from tests.protocol.documented.test_reference_pages import table
from tests.support.paths import REFERENCE
from tests.support.tools.openapi import committed

_VALUES: dict[str, Any] = {
    "channel": "doc:1",
    "user_id": "nobody",
    "connection_id": "ab-1",
    "task_id": "no-such-task",
    "key_id": "0" * 12,
    "number": 1,
    "name": "somebody",
    "rights": ["read"],
    "message": {"type": "hello"},
    "title": "hello",
}
"""Values of parameters and fields, by their names. Any other is made from its schema, if it is required."""


class EveryCall(NamedTuple):
    """One call."""

    method: str
    path: str
    body: Any
    right: ApiRight
    """The one that it needs, as docs/reference/management-api.md says."""

    @property
    def label(self) -> str:
        return f"{self.method} {self.path}"


def every_call() -> list[EveryCall]:
    """All calls, `/metrics` as well."""
    page = (REFERENCE / "management-api.md").read_text(encoding="utf-8")
    needed = {row[0].strip("`"): ApiRight(row[1].strip("`")) for row in table(page, "| call | needs |")}
    return [*_calls(needed), EveryCall("GET", "/metrics", None, ApiRight.METRICS)]


def _calls(needed: dict[str, ApiRight]) -> Iterator[EveryCall]:
    described = committed()
    for path, methods in described["paths"].items():
        for name, call in methods.items():
            method, short = name.upper(), path.removeprefix(PREFIX)
            schema = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            body = None if schema is None else _example(schema, described["components"]["schemas"])
            yield EveryCall(method, path.format_map(_VALUES), body, needed[f"{method} {short}"])


def _fits(name: str, schema: dict[str, Any]) -> bool:
    """Whether the value of this name is one for the schema: a message may be a text or an object."""
    kinds = {each.get("type") for each in schema.get("anyOf", [schema])}
    kind = {str: "string", dict: "object", list: "array", int: "integer"}.get(type(_VALUES.get(name)))
    return kind is not None and kind in kinds


def _example(schema: dict[str, Any], models: dict[str, Any]) -> Any:
    """A value that a schema takes."""
    if "$ref" in schema:
        return _example(models[schema["$ref"].rpartition("/")[2]], models)
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], models)
    if schema.get("type") == "object":
        fields: dict[str, Any] = schema.get("properties", {})
        named = {name: _VALUES[name] for name, field in fields.items() if _fits(name, field)}
        return {name: _example(fields[name], models) for name in schema.get("required", ())} | named
    if schema.get("type") == "array":
        return [_example(schema["items"], models) for _ in range(max(1, schema.get("minItems", 1)))]
    return {"integer": schema.get("minimum", 1), "number": 1, "boolean": False}.get(schema.get("type", ""), "x" * 20)
