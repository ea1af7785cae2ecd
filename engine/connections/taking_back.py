"""Ends what was revoked, on one worker: connections of revoked tokens, and subscriptions of removed users."""

from collections.abc import Iterable
from typing import NoReturn

from fanline.engine.access.access import Access
from fanline.engine.access.application.authorizers import Authorizers
from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.revoked.removals import Removals
from fanline.engine.access.revoked.revocations import Revocations
from fanline.engine.bus.interface import Bus
from fanline.engine.connections.connection import Connection
from fanline.engine.sessions.commands.subscriptions import end_removed
from fanline.protocol.errors import CloseReason


class TakingBack:
    """`connections`: those of this worker, whenever it is asked."""

    def __init__(
        self,
        bus: Bus,
        access: Access,
        authorizers: Authorizers,
        removals: Removals,
        connections: Iterable[Connection],
        audit: Audit,
    ) -> None:
        self._access = access
        self._authorizers = authorizers
        self._removals = removals
        self._revocations = Revocations(bus, removals)
        self._connections = connections
        self._audit = audit

    @property
    def is_needed(self) -> bool:
        """Whether anything can be taken back: without tokens and handlers nothing is given."""
        access = self._access
        return access.verifier is not None or access.authenticator is not None or bool(self._authorizers)

    async def begin(self) -> None:
        """Know which tokens were taken back before the first one is accepted. BusError."""
        self._access.is_revoked = self._revocations.covers
        await self._revocations.read()

    async def run(self) -> NoReturn:
        """Look for new revocations, forever."""
        await self._revocations.run(self._end)

    def bus_is_back(self) -> None:
        """What was revoked during an outage may have expired."""
        self._revocations.bus_is_back()
        self._authorizers.forget()

    def _end(self) -> None:
        removals = self._removals.take_new()
        self._authorizers.forget(removals)
        for connection in self._connections:
            session = connection.session
            if self._revocations.covers(session.identity):
                self._audit.record(AuditEvent.REVOKED, session.identity)
                connection.close(CloseReason.UNAUTHENTICATED)
            for removal in removals.get(session.identity.user or "", ()):
                for channel in [each for each in session.subscriptions or () if removal.covers(each)]:
                    self._audit.record(AuditEvent.REMOVED, session.identity, channel=channel)
                    end_removed(session, removal, channel)
