"""The parts of one worker, put together bottom up, as the layers are."""

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from fanline.engine.access.access import Access
from fanline.engine.access.audit import Audit, AuditEvent
from fanline.engine.access.authorizers import Authorizers
from fanline.engine.access.handlers import HandlerClient
from fanline.engine.access.permissions import Permissions
from fanline.engine.access.removals import Removals
from fanline.engine.access.revocations import Revocations
from fanline.engine.access.routes import Routes
from fanline.engine.access.user_places import UserPlaces
from fanline.engine.bus.interface import Bus
from fanline.engine.channels.durable.history import History
from fanline.engine.channels.durable.log_budget import LogBudget
from fanline.engine.channels.durable.paging import Paging
from fanline.engine.channels.durable.recovery import Recovery
from fanline.engine.channels.durable.stream_states import StreamStates
from fanline.engine.channels.flusher import Flusher
from fanline.engine.channels.hub import Hub
from fanline.engine.channels.inbox import Acknowledgements
from fanline.engine.channels.join import Joining
from fanline.engine.channels.messages import MessageReader
from fanline.engine.channels.subscription import Router
from fanline.engine.clock import unix_ms
from fanline.engine.cluster.members import Members
from fanline.engine.connections.admission import Admissions
from fanline.engine.connections.connection import ConnectionShared
from fanline.engine.connections.registry import Registry
from fanline.engine.counters import Counters
from fanline.engine.faults import Faults
from fanline.engine.hooks.events import Events
from fanline.engine.hooks.questions import Questions
from fanline.engine.hooks.settings import ServedHooks
from fanline.engine.limits import LimitHits
from fanline.engine.management.management import Management
from fanline.engine.namespaces import Namespaces
from fanline.engine.presence.online import OnlineCounter
from fanline.engine.presence.presence import Presence
from fanline.engine.sending.outbox import OutboxShared
from fanline.engine.sessions.attending import Attending
from fanline.engine.sessions.beside import Beside
from fanline.engine.sessions.calls import Calls
from fanline.engine.sessions.commands import Commands, end_removed
from fanline.engine.sessions.expiry import Expiry
from fanline.engine.sessions.identification import Identification
from fanline.engine.sessions.own import OwnCommands
from fanline.engine.sessions.publisher import ClientPublisher
from fanline.engine.sessions.rate import Rate, SlowLane
from fanline.engine.sessions.store import SessionStore
from fanline.engine.sessions.talk.talk import Talk
from fanline.engine.settings import EngineSettings
from fanline.engine.slices import Turns
from fanline.engine.tasks.monitor.monitor import TaskMonitor
from fanline.protocol.errors import CloseReason
from fanline.protocol.escapes import unescape_id
from fanline.protocol.hooks.events import TaskEnded
from fanline.protocol.messages import Limits
from fanline.protocol.nats.names import AUDIT_SUBJECT
from fanline.protocol.tasks.snapshot import Snapshot

RunVital = Callable[[str, Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs what the whole worker depends on, under this name."""


class Assembly:
    """What the connections of one worker need. `name`: what the other workers and people call this one."""

    def __init__(self, bus: Bus, settings: EngineSettings, access: Access, name: str, hooks: ServedHooks) -> None:
        self.access = access
        self.namespaces = Namespaces(settings.namespaces)
        self.counters = Counters()
        tell = partial(bus.tell, AUDIT_SUBJECT) if settings.audit_events else None
        self.hits = LimitHits(self.counters)
        self.audit = Audit(settings.audit_log, name, tell)
        self.faults = Faults(self.counters)
        self.registry = Registry(settings.heartbeat, self.counters, self.faults)
        self._calls: Calls | None = None  # until `start`
        self._bus = bus
        self._settings = settings
        self._members = Members(bus, name)
        self.places = UserPlaces(bus, self._members, access.check_revoked, self.hits)
        self.routes = Routes(settings.routes, settings.idle_timeout, settings.heartbeat, access.settings.connections)
        self._removals = Removals()
        self._revocations = Revocations(bus, self._removals)
        handlers = access.handlers or HandlerClient(bus)
        self._events = Events(bus, hooks.events, name, self.counters)
        self._own = OwnCommands(Questions(handlers, hooks.handlers, self.counters))
        self._authorizers = Authorizers(handlers, settings.namespaces, self._removals)
        self._permissions = Permissions(self.namespaces, self._authorizers, closed=access.closed)
        self.admissions = Admissions(access, self._permissions, self.places, self._knows_task)

    async def start(self, nursery: trio.Nursery, run_vital: RunVital) -> ConnectionShared:
        """Start what runs in the background; what all connections share. BusError, if the bus does not let this worker
        hear what all workers hear.
        """
        shared = self._start_parts(nursery, run_vital)
        for namespace in self.namespaces.everywhere():
            await self._bus.wait_joined(f"{namespace}:")
        await self._talk.start()
        if self.access.verifier is not None:
            nursery.start_soon(self.faults.keep, "the keys of tokens", self.access.verifier.run)
        if self.access.verifier is not None or self.access.authenticator is not None or self._authorizers:
            await self._start_revocations(nursery)
        return shared

    async def _knows_task(self, channel: str) -> bool:
        assert self._calls is not None, "nobody is admitted before the start"
        return await self._calls.knows(channel)

    def _start_parts(self, nursery: trio.Nursery, run_vital: RunVital) -> ConnectionShared:
        """Make what all connections share, and start what runs in the background."""
        settings, counters, faults = self._settings, self.counters, self.faults
        outboxes = OutboxShared(
            nursery,
            counters,
            self.hits,
            max_bytes=settings.outbox_bytes,
            max_messages=settings.outbox_messages,
            on_fault=faults.report,
        )
        joining, paging, attending = self._start_channels(nursery, run_vital)
        store = SessionStore(self._bus)
        expiry = Expiry(self.access.tokens.grace)
        commands = self._make_commands(nursery, joining, paging, attending, store, expiry)
        assert self._calls is not None
        management = self._manage(commands=commands, calls=self._calls)
        nursery.start_soon(faults.keep, "management", management.run)
        nursery.start_soon(faults.keep, "the session store", store.run)
        nursery.start_soon(faults.keep, "the heartbeat", self.registry.beat)
        nursery.start_soon(faults.keep, "the end of tokens", expiry.run)
        nursery.start_soon(faults.keep, "the places of users", self.places.run)
        rate = Rate(settings.messages_per_second, settings.bytes_per_second, settings.reading_share)
        limits = Limits(message=settings.max_message_bytes, subscriptions=settings.max_subscriptions)
        return ConnectionShared(
            settings=settings,
            limits=limits,
            counters=counters,
            hits=self.hits,
            outboxes=outboxes,
            commands=commands,
            store=store,
            events=self._events,
            expiry=expiry,
            rate=rate,
            lane=SlowLane(),
            places=self.places,
        )

    def _say_ended(self, channel: str, snapshot: Snapshot) -> None:
        """An attempt of a task has ended. A worker that takes the task over may find out, too."""
        ended = TaskEnded(
            task_id=unescape_id(channel.partition(":")[2]),
            channel=channel,
            state=snapshot.state,
            attempt=snapshot.attempt,
            result=snapshot.result,
            error=snapshot.error,
            by=snapshot.by,
        )
        self._events.say_once(ended, f"{channel}/{snapshot.attempt}/{snapshot.ended}")

    async def _start_revocations(self, nursery: trio.Nursery) -> None:
        """Know which tokens were taken back before the first one is accepted. BusError."""
        self.access.is_revoked = self._revocations.covers
        await self._revocations.read()

        nursery.start_soon(self.faults.keep, "revocations", partial(self._revocations.run, self._take_back))

    def _take_back(self) -> None:
        """End what was taken back: connections, and subscriptions."""
        removals = self._removals.take_new()
        self._authorizers.forget(removals)
        for connection in self.registry:
            session = connection.session
            if self._revocations.covers(session.identity):
                self.audit.record(AuditEvent.REVOKED, session.identity)
                connection.close(CloseReason.UNAUTHENTICATED)
            for removal in removals.get(session.identity.user or "", ()):
                for channel in [each for each in session.subscriptions or () if removal.covers(each)]:
                    self.audit.record(AuditEvent.REMOVED, session.identity, channel=channel)
                    end_removed(session, removal, channel)

    def _start_channels(self, nursery: trio.Nursery, run_vital: RunVital) -> tuple[Joining, Paging, Attending]:
        """The hub with all that is behind it, from the bus to the flusher."""
        bus, settings, counters, faults = self._bus, self._settings, self.counters, self.faults
        turns = Turns()
        reader = MessageReader(self.namespaces, counters, faults, unix_ms, turns)
        budget = LogBudget(settings.log_bytes)
        everyone, find, log_limit = self.registry.everyone, self.registry.find, settings.log_messages
        hub = Hub(self.namespaces, reader, counters, faults, everyone, find, log_limit=log_limit, budget=budget)
        states = StreamStates(bus)
        recovery = Recovery(bus, hub, states, reader, faults, nursery, turns)
        monitor = TaskMonitor(
            bus,
            self._members,
            self.namespaces,
            reader.read_stored,
            reader.refuse,
            counters,
            faults,
            on_ended=self._say_ended,
        )

        router = Router(hub, bus, settings.bus_timeout)
        presence, online = self._start_presence(nursery, router, hub)

        def bus_is_back(sound_until: float) -> None:
            presence.watches.compare_soon()
            recovery.bus_is_back(sound_until)
            hub.bus_is_back()
            monitor.bus_is_back()
            self._revocations.bus_is_back()
            self._authorizers.forget()  # what was taken back meanwhile may have expired

        flusher = Flusher(hub, counters, coalesce_ms=settings.coalesce)
        bus.attach(hub.receive, bus_is_back, flusher.after_burst, hub.overhear)
        nursery.start_soon(faults.keep, "the list of live workers", self._members.run)
        nursery.start_soon(monitor.run)
        nursery.start_soon(run_vital, "the flusher", flusher.run)
        joining = Joining(
            bus,
            router,
            recovery,
            History(bus, states, reader, recovery),
            counters,
            faults,
            timeout=settings.bus_timeout,
            patience=settings.idle_timeout,
            turns=turns,
        )
        self._talk = Talk(bus, hub, find, self._members, self._permissions, nursery)
        nursery.start_soon(faults.keep, "receipts", self._talk.taken.run)
        attending, paging = Attending(joining, presence, online, self._permissions), Paging(bus, states, reader)
        self._manage = partial(
            Management,
            bus=bus,
            members=self._members,
            namespaces=self.namespaces,
            registry=self.registry,
            hub=hub,
            presence=presence,
            paging=paging,
            joining=joining,
            counters=counters,
            faults=faults,
            nursery=nursery,
        )
        return joining, paging, attending

    def _start_presence(self, nursery: trio.Nursery, router: Router, hub: Hub) -> tuple[Presence, OnlineCounter]:
        bus, settings, faults = self._bus, self._settings, self.faults
        limit, timeout = settings.presence_users, settings.bus_timeout
        presence = Presence(
            bus, router, hub, self._members, self.namespaces, faults, nursery, limit=limit, timeout=timeout
        )
        online = OnlineCounter(bus, self._members, faults, nursery, self.registry.users)
        nursery.start_soon(faults.keep, "presence", presence.run)
        nursery.start_soon(faults.keep, "what presence follows", presence.watches.run)
        nursery.start_soon(faults.keep, "the count of users", online.run)
        return presence, online

    def _make_commands(
        self,
        nursery: trio.Nursery,
        joining: Joining,
        paging: Paging,
        attending: Attending,
        store: SessionStore,
        expiry: Expiry,
    ) -> Commands:
        bus, settings, namespaces = self._bus, self._settings, self.namespaces
        acknowledgements = Acknowledgements(bus)
        nursery.start_soon(self.faults.keep, "acknowledgements of inboxes", acknowledgements.run)
        self._calls = Calls(bus, namespaces, joining, timeout=settings.call_timeout)
        identification = Identification(self.access, self.places, self._permissions, attending, expiry, self.audit)
        return Commands(
            bus=bus,
            identification=identification,
            audit=self.audit,
            permissions=self._permissions,
            attending=attending,
            removals=self._removals,
            joining=joining,
            paging=paging,
            namespaces=namespaces,
            publisher=ClientPublisher(bus, namespaces),
            calls=self._calls,
            own=self._own,
            beside=Beside(nursery, self.faults.report),
            talk=self._talk,
            store=store,
            acknowledgements=acknowledgements,
            counters=self.counters,
            hits=self.hits,
            on_fault=self.faults.report,
            max_subscriptions=settings.max_subscriptions,
        )
