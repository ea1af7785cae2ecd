"""The section "Data of control messages" of docs/reference/protocol.md lists the keys of the types."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT

from fanline.protocol.messages import commands
from fanline.protocol.messages.answers import (
    Authenticated,
    ErrorData,
    HistoryAnswer,
    PresenceData,
    PresentUser,
    PublishResult,
    Subscribed,
)
from fanline.protocol.messages.commands import AskHistory, Authenticate, CallData, Subscribe
from fanline.protocol.messages.control_data import ControlData
from fanline.protocol.messages.notices import ByeData, Expiring, GapData, GapReason, Limits, ReconnectData, Welcome
from tests.protocol.documented.test_reference_pages import PROTOCOL, table

ON_THE_PAGE: dict[str, type[ControlData]] = {
    "auth": Authenticate,
    "sub": Subscribe,
    "history": AskHistory,
    "call": CallData,
    "welcome": Welcome,
    "limits` of `welcome": Limits,
    "ok` to `auth": Authenticated,
    "auth` of the server": Expiring,
    "ok` to `sub": Subscribed,
    "ok` to `pub": PublishResult,
    "ok` to `history": HistoryAnswer,
    "ok` to `presence": PresenceData,
    "join` and `leave": PresentUser,
    "err": ErrorData,
    "gap": GapData,
    "reconnect": ReconnectData,
    "bye": ByeData,
}


def value_of(type_: Any) -> str:
    """The page's word for the values of a field."""
    if get_origin(type_) is Annotated:
        return value_of(get_args(type_)[0])
    if get_origin(type_) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(type_) if kind is not msgspec.UnsetType]
        return " or ".join(value_of(kind) for kind in kinds)
    if get_origin(type_) is list:
        return "list"
    words = {str: "text", int: "integer", float: "number", bool: "boolean", Any: "any", type(None): "null"}
    return words.get(type_, "map")


def documented(kind: type[ControlData]) -> list[tuple[str, str]]:
    """(key, value) of each field, as on the page. A null that is never written is not mentioned."""
    rows = []
    for field in msgspec.structs.fields(kind):
        word = value_of(field.type)
        if field.default is None and kind.__struct_config__.omit_defaults:
            word = word.removesuffix(" or null")
        required = field.default is NODEFAULT and field.default_factory is NODEFAULT
        rows.append((field.encode_name, word if required else f"{word}, optional"))
    return rows


def test_the_page_lists_every_key_of_control_data_in_order() -> None:
    rows: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for row in table(PROTOCOL, "| data of | key |"):
        name = row[0] or name
        rows.setdefault(name, []).append((row[1], row[2]))
    assert rows == {name: documented(kind) for name, kind in ON_THE_PAGE.items()}


def test_every_type_of_control_data_is_on_the_page() -> None:
    assert set(ON_THE_PAGE.values()) == set(ControlData.__subclasses__())


def test_the_page_says_the_bounds_and_defaults() -> None:
    table_rows = table(PROTOCOL, "| data of | key |")
    rows = {row[1]: row[3] for row in table_rows}
    assert f"(1 to {commands.MAX_LAST:,})" in rows["last"]
    assert f"(0 to {commands.MAX_LINES:,}, default {commands.DEFAULT_LINES})" in rows["lines"]
    assert f"(default {commands.CANCEL_SECONDS:g})" in rows["deadline"]
    reasons = " ".join(row[3] for row in table_rows if row[1] == "reason")
    assert all(reason in reasons for reason in GapReason)
