"""What the engine tells the clients on a channel in the name of one of them."""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import trio

from fanline.engine.access.identity import Identity
from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus
from fanline.engine.clock import unix_ms
from fanline.engine.sessions.session import Session
from fanline.protocol.copies import copies_of
from fanline.protocol.envelope import Envelope, MessageType, encode_json


class Announcer:
    """Notifies the current subscribers of channels, each of them once; nothing of it is stored."""

    def __init__(self, bus: Bus, nursery: trio.Nursery) -> None:
        self._bus = bus
        self._nursery = nursery

    async def tell(
        self,
        session: Session,
        channels: Iterable[str],
        event: str,
        fields: Mapping[str, Any],
        about: str | None = None,
        **more: Any,
    ) -> None:
        """Tell all but the session itself. The data is `fields`, which stand at the top level as well, and `more`.
        `about`: the id of the message that it is about. BusError.
        """
        envelope = message_of(session, event, {**fields, **more}, fields, about)
        for copy in copies_of(envelope, channels):
            await self._bus.publish_live(copy.channel or "", encode_json(copy))

    def tell_soon(self, session: Session, channels: Iterable[str], event: str, fields: Mapping[str, Any]) -> None:
        """The same, without waiting for it; lost if the bus is away."""
        self._nursery.start_soon(self._try, session, [*channels], event, fields)

    async def _try(self, session: Session, channels: list[str], event: str, fields: Mapping[str, Any]) -> None:
        with suppress(BusError):
            await self.tell(session, channels, event, fields)


def message_of(
    session: Session, event: str, data: Mapping[str, Any], extra: Mapping[str, Any], about: str | None = None
) -> Envelope:
    """A message in the name of a session's user, for all but the session itself. `extra`: what stands at the top level,
    where it is not None; `about`: the id of the message that it is about, if it is about one.
    """
    return Envelope(
        MessageType.PUB,
        id=about or secrets.token_urlsafe(12),
        event=event,
        data=data,
        sender=session.identity.user,
        time=unix_ms(),
        extra={key: value for key, value in extra.items() if value is not None},
        excluded=session.connection,
    )


def user_fields(identity: Identity) -> dict[str, Any]:
    """A user as others see it."""
    user = {"user_id": identity.user, "username": identity.username or identity.user}
    return {**user, "user": user}
