"""The `[namespaces.NAME]` tables of fanline.toml: a key that is given replaces the namespace's default."""

from collections.abc import Mapping

import msgspec

from fanline.engine.namespaces import DEFAULTS, ROOMS, Namespace, SlowPolicy
from fanline.protocol.channels import check_channel
from fanline.protocol.errors import MessageError
from fanline.workers.configuration.access import check_handler
from fanline.workers.configuration.wording import read_value
from fanline.workers.errors import SettingsError


def read_namespaces(tables: object, source: str) -> dict[str, Namespace]:
    """Name -> namespace. Raises SettingsError naming the table and the key at fault."""
    if not isinstance(tables, Mapping):
        raise SettingsError(f"bad value for namespaces in {source}: expected tables such as [namespaces.task]")
    return {name: _namespace(name, table, source) for name, table in tables.items()}


def with_room_authorizer(declared: Mapping[str, Namespace], authorizer: str) -> Mapping[str, Namespace]:
    """The authorizer of rooms, for the namespaces of rooms that name none of their own."""
    if not authorizer:
        return declared
    rooms = {name: declared.get(name, DEFAULTS[name]) for name in ROOMS}
    silent = {name: room for name, room in rooms.items() if not room.authorizer}
    return {**declared, **{name: msgspec.structs.replace(room, authorizer=authorizer) for name, room in silent.items()}}


def _namespace(name: str, table: object, source: str) -> Namespace:
    where = f"[namespaces.{name}] in {source}"
    try:
        check_channel(f"{name}:x")
    except MessageError:
        raise SettingsError(f"{where}: the name of a namespace is a-z, 0-9, _ and -, starting with a letter") from None
    if not isinstance(table, Mapping):
        raise SettingsError(f"bad value for {where}: expected a table")
    given = {key: read_value(Namespace, key, value, where) for key, value in table.items()}
    namespace = msgspec.structs.replace(DEFAULTS.get(name, Namespace()), **given)
    if namespace.durable and namespace.slow is SlowPolicy.DROP:
        raise SettingsError(f'{where}: slow = "drop" is for ephemeral namespaces; a durable one never loses messages')
    if namespace.tasks and not namespace.durable:
        raise SettingsError(f"{where}: tasks = true requires durable = true: a task is folded from its stream")
    check_handler(f"{where}: authorizer", namespace.authorizer)
    return namespace
