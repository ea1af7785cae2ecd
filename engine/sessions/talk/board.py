"""The task board: what clients say of its items goes to the item's assignee and its project, each viewer once.

Items are no tasks of the engine: they have states of their own, and no channel.
"""

from collections.abc import Iterator
from typing import Any

from fanline.engine.access.permissions import Permissions
from fanline.engine.bus.interface import Bus
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import message_of
from fanline.engine.sessions.talk.items import Item, Items
from fanline.protocol.auth.rights import Right
from fanline.protocol.channels import is_channel
from fanline.protocol.copies import copies_of
from fanline.protocol.dialects.plain_commands import PlainCommand
from fanline.protocol.envelope import Envelope, MessageType, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.escapes import escape_id
from fanline.protocol.hooks.events import MessageReceived


class Board:
    """The boards of the clients of one worker."""

    def __init__(self, bus: Bus, permissions: Permissions) -> None:
        self._bus = bus
        self._permissions = permissions
        self._items = Items(bus)

    async def tell(self, session: Session, command: PlainCommand) -> None:
        """Perform a `task_...` of a board. MessageError, BusError."""
        event, fields, item_id = command.event or "", command.value, command.key
        before = Item() if item_id is None else await self._items.find(item_id)
        item = Item(
            project=_text(fields.get("project_id")) or before.project or session.visit.values.get("?project_id"),
            assignee=_text(fields.get("assignee_id")) or _text(fields.get("user_id")) or before.assignee,
            fields=before.fields | _shown(event, fields),
        )
        channels = [channel for channel in _channels(item) if await self._may(session, channel)]
        if not channels:
            raise MessageError(ErrorCode.PERMISSION_DENIED, "Task access denied")
        session.events.say(MessageReceived, session, event=event, data=fields)
        if item_id is not None and event == "task_deleted":
            await self._items.forget(item_id, before)
        elif item_id is not None:
            await self._items.keep(item_id, item, before)
        extra = {"task_id": fields.get("task_id"), "project_id": item.project, "username": session.identity.username}
        for copy in copies_of(message_of(session, event, fields, extra), channels):
            await self._bus.store(copy.channel or "", encode_json(copy))

    async def list(self, session: Session, command: PlainCommand) -> Envelope:
        """The answer to `get_tasks`. MessageError, BusError."""
        await self._permissions.check(session.identity, Right.SUB, f"project:{escape_id(command.data)}")
        return Envelope(MessageType.OK, data={"tasks": await self._items.of_project(command.data)})

    async def _may(self, session: Session, channel: str) -> bool:
        try:
            await self._permissions.check(session.identity, Right.PUB, channel)
        except MessageError as error:
            if error.code is ErrorCode.PERMISSION_DENIED:
                return False
            raise
        return True


def _channels(item: Item) -> Iterator[str]:
    if item.assignee is not None and is_channel(f"user:{item.assignee}"):
        yield f"user:{item.assignee}"
    if item.project is not None and is_channel(project := f"project:{escape_id(item.project)}"):
        yield project


def _shown(event: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What an event says of how its item is."""
    known = {key: value for key, value in fields.items() if key not in ("old_status", "new_status", "changed_by")}
    return known | ({"status": fields["new_status"]} if "new_status" in fields else {})


def _text(value: Any) -> str | None:
    is_id = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) or None if is_id else None
