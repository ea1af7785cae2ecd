"""Collaborations: who works on a document, over all workers. The truth about a client is only in its worker, which is
asked each time; so a worker that dies leaves no ghosts.
"""

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.interface import Bus, Respond
from fanline.engine.cluster.members import Members
from fanline.engine.sessions.session import Session
from fanline.engine.sessions.talk.announcer import Announcer, user_fields
from fanline.protocol.compat.escapes import unescape_id
from fanline.protocol.nats.names import system_subject

COLLABORATORS = system_subject("collaborators")
"""Where workers ask each other for those of a channel."""
MAX_COLLABORATORS = 100
"""Those of one document that a worker names."""
_SECONDS = 0.5
_User = Mapping[str, Any]


class Documents:
    """The collaborations of the sessions of one worker."""

    def __init__(self, bus: Bus, members: Members, announcer: Announcer) -> None:
        self._bus = bus
        self._members = members
        self._announcer = announcer
        self._here: dict[str, dict[Session, None]] = {}
        self._documents: dict[Session, set[str]] = {}

    async def start(self) -> None:
        """Answer what other workers ask."""
        with suppress(BusError):  # it takes effect once the bus is back
            await self._bus.answer(COLLABORATORS, self._answer)

    def _answer(self, asked: bytes, respond: Respond) -> None:
        respond(msgspec.json.encode(self._own(asked.decode("ascii", "replace"))))

    def _own(self, channel: str) -> list[_User]:
        return [user_fields(each.identity)["user"] for each in islice(self._here.get(channel, ()), MAX_COLLABORATORS)]

    async def enter(self, session: Session, channel: str) -> list[_User]:
        """A session has subscribed to a document, and works on it; the collaborators. BusError."""
        self._here.setdefault(channel, {})[session] = None
        self._documents.setdefault(session, set()).add(channel)
        return await self._tell(session, channel, "collaboration_start")

    async def leave(self, session: Session, channel: str) -> list[_User]:
        """A session works on it no longer, if it did; those who do. BusError."""
        if not self._discard(session, channel):
            return await self._all(channel)
        return await self._tell(session, channel, "collaboration_end")

    async def drop(self, session: Session, channel: str) -> None:
        """The same, without an answer."""
        with suppress(BusError):
            await self.leave(session, channel)

    async def part(self, session: Session) -> None:
        """A session has ended."""
        for channel in sorted(self._documents.get(session, ())):
            await self.drop(session, channel)

    def works(self, session: Session) -> bool:
        """Whether a session works on any document."""
        return session in self._documents

    def _discard(self, session: Session, channel: str) -> bool:
        documents = self._documents.get(session, set())
        if channel not in documents:
            return False
        documents.remove(channel)
        if not documents:
            del self._documents[session]
        del self._here[channel][session]
        if not self._here[channel]:
            del self._here[channel]
        return True

    async def _tell(self, session: Session, channel: str, event: str) -> list[_User]:
        found = await self._all(channel)
        fields = {**user_fields(session.identity), "document_id": unescape_id(channel.partition(":")[2])}
        await self._announcer.tell(session, [channel], event, fields, collaborators=found)
        return found

    async def _all(self, channel: str) -> list[_User]:
        """Each user once."""
        count = len(await self._members.look())  # a worker that has just come may have collaborators, too
        answers = await self._bus.ask_all(COLLABORATORS, channel.encode(), _SECONDS, count)
        users: dict[str | None, _User] = {}
        for answer in answers:
            for user in msgspec.json.decode(answer, type=list[dict[str, Any]]):
                users.setdefault(user.get("user_id"), user)
        return list(users.values())
