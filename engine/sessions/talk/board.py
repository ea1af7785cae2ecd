"""The task board: what clients and producers say of its items goes to the item's assignee and its project, each viewer
once.

Items are no tasks of the engine: they have states of their own, and no channel.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import trio

from fanline.engine.access.permissions import Permissions
from fanline.engine.bus.errors import BusError, TooLargeError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.clock import unix_ms
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import message_of
from fanline.engine.sessions.talk.items import Item, Items
from fanline.protocol.auth.rights import Right
from fanline.protocol.channels import is_channel
from fanline.protocol.compat.board import BoardAnswer, BoardUpdate, decode_update, encode_answer, id_in
from fanline.protocol.compat.escapes import escape_id, inbox_name
from fanline.protocol.copies import copies_of
from fanline.protocol.dialects.plain.commands import PlainCommand
from fanline.protocol.envelope import Envelope, MessageType, check_texts, encode_json
from fanline.protocol.errors import ErrorCode, MessageError
from fanline.protocol.hooks.events import MessageReceived
from fanline.protocol.nats.names import BOARD_SUBJECT, producer_store_id

_DELETED = "task_deleted"
MOST_UPDATES = 64
"""Of producers that a worker has under way; those who send more are to come again."""


class Board:
    """The boards of the whole cluster, as one worker tells of them."""

    def __init__(self, bus: Bus, permissions: Permissions, nursery: trio.Nursery) -> None:
        self._bus = bus
        self._permissions = permissions
        self._items = Items(bus)
        self._nursery = nursery
        self._updates = 0

    # --- what clients say ----------------------------------------------------------------------------------------

    async def tell(self, session: Session, command: PlainCommand) -> None:
        """Perform a `task_...` of a board. MessageError, BusError."""
        event, fields, item_id = command.event or "", command.value, command.key
        before = await self._find(item_id)
        item = _changed(before, event, fields, session.visit.values.get("?project_id"))
        channels = [channel for channel in _channels(item) if await self._may(session, channel)]
        if not channels:
            raise MessageError(ErrorCode.PERMISSION_DENIED, "Task access denied")
        session.events.say(MessageReceived, session, event=event, data=fields)
        extra = {"task_id": fields.get("task_id"), "project_id": item.project, "username": session.identity.username}
        message = message_of(session, event, fields, extra)
        await self._carry_out(item_id, before, item, copies_of(message, channels), deleted=event == _DELETED)

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

    # --- what producers say --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Answer producers."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(BOARD_SUBJECT, self._hear, shared=True)

    def _hear(self, payload: bytes, respond: Respond) -> None:
        if self._updates >= MOST_UPDATES:
            respond(encode_answer(BoardAnswer("too many updates of items are under way", retry=True)))
            return
        self._updates += 1
        self._nursery.start_soon(self._answer, payload, respond)

    async def _answer(self, payload: bytes, respond: Respond) -> None:
        try:
            await self._take(decode_update(payload))
            answer = BoardAnswer()
        except (MessageError, TooLargeError) as error:
            answer = BoardAnswer(str(error))
        except BusError as error:
            answer = BoardAnswer(str(error), retry=True)
        finally:
            self._updates -= 1
        respond(encode_answer(answer))

    async def _take(self, update: BoardUpdate) -> None:
        """MessageError, BusError."""
        event, fields, item_id = update.event, update.data, update.item
        before = await self._find(item_id)
        item = _changed(before, event, fields)
        channels = [*_channels(item)]
        if not channels:
            known = "it is not known to the server" if item_id else "there is no task_id"
            text = f"it is not known whom {event} concerns: the data name no project_id and no assignee_id, and {known}"
            raise MessageError(ErrorCode.BAD_MESSAGE, text)
        extra = {"task_id": fields.get("task_id"), "project_id": item.project}
        message = Envelope(MessageType.PUB, id=update.id, event=event, data=fields, time=unix_ms())
        message.extra = {key: value for key, value in extra.items() if value is not None} or None
        check_texts(message)
        await self._carry_out(item_id, before, item, copies_of(message, channels), deleted=event == _DELETED)

    # --- for both ------------------------------------------------------------------------------------------------

    async def _find(self, item_id: str | None) -> Item:
        return Item() if item_id is None else await self._items.find(item_id)

    async def _carry_out(
        self, item_id: str | None, before: Item, item: Item, copies: Iterable[Envelope], *, deleted: bool
    ) -> None:
        """A client that gets an event of an item finds the item in the list. A deleted item is forgotten last, so that
        steps that failed before may be repeated: until then it is known whom it concerns. BusError.
        """
        if item_id is not None and not deleted:
            await self._items.keep(item_id, item, before)
        for copy in copies:
            channel = copy.channel or ""
            await self._bus.store(channel, encode_json(copy), producer_store_id(channel, copy.id or ""))
        if item_id is not None and deleted:
            await self._items.forget(item_id, before)


def _changed(before: Item, event: str, fields: Mapping[str, Any], project: str | None = None) -> Item:
    """An item after an event. `project`: where it belongs if neither says."""
    return Item(
        project=id_in(fields, "project_id") or before.project or project,
        assignee=id_in(fields, "assignee_id", "user_id") or before.assignee,
        fields=before.fields | _shown(event, fields),
    )


def _channels(item: Item) -> Iterator[str]:
    if item.assignee is not None and is_channel(inbox := inbox_name(item.assignee)):
        yield inbox
    if item.project is not None and is_channel(project := f"project:{escape_id(item.project)}"):
        yield project


def _shown(event: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an event says of how its item is."""
    known = {key: value for key, value in fields.items() if key not in ("old_status", "new_status", "changed_by")}
    return known | ({"status": fields["new_status"]} if "new_status" in fields else {})
