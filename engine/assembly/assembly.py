"""The parts of one worker, put together."""

import trio

from fanline.engine.access.access import Access
from fanline.engine.assembly.admittance import Admittance
from fanline.engine.assembly.basis import Basis, RunVital
from fanline.engine.assembly.channels import ChannelParts, start_channels
from fanline.engine.assembly.commands import AnsweringParts, start_commands
from fanline.engine.connections.admission import Admissions
from fanline.engine.connections.connection import ConnectionShared
from fanline.engine.hooks.questions import Questions
from fanline.engine.hooks.settings import ServedHooks
from fanline.engine.management.feed import Feed
from fanline.engine.management.management import Management
from fanline.engine.sending.outbox import OutboxShared
from fanline.engine.sessions.calls.calls import Calls
from fanline.engine.sessions.calls.managing import Managing
from fanline.engine.sessions.calls.own import OwnCommands
from fanline.engine.sessions.commands.commands import Commands
from fanline.engine.sessions.identity.expiry import Expiry
from fanline.engine.sessions.rate import Rate, SlowLane
from fanline.engine.sessions.store import SessionStore
from fanline.engine.sessions.talk.talk import Talk
from fanline.engine.sockets.control_socket import ControlSocket
from fanline.protocol.messages.notices import Limits


class Assembly:
    """What the connections of one worker need. `control`: the path of the control process's socket, "" if there is
    none.
    """

    def __init__(self, basis: Basis, access: Access, hooks: ServedHooks, control: str = "") -> None:
        self._basis = basis
        self.admittance = admittance = Admittance(basis, access)
        self.admissions = Admissions(
            access, admittance.permissions, admittance.places, self._knows_task, admittance.key_holders
        )
        self.control = ControlSocket(control, basis.settings, basis.hits)
        self._managing = Managing(self.control, admittance.key_holders)
        self._own = OwnCommands(Questions(admittance.handlers, hooks.answerers, basis.counters))
        self._calls: Calls | None = None  # until `start`

    async def start(self, nursery: trio.Nursery, run_vital: RunVital) -> ConnectionShared:
        """Start what runs in the background; what all connections share. BusError if this worker cannot subscribe
        to what all workers get.
        """
        basis, access, taking_back = self._basis, self.admittance.access, self.admittance.taking_back
        channels = start_channels(basis, nursery, run_vital, taking_back.bus_is_back)
        talk = self._make_talk(channels, nursery)
        shared = self._share(channels, talk, nursery)
        for namespace in basis.namespaces.everywhere():
            await basis.bus.wait_joined(f"{namespace}:")
        await talk.start()
        if access.verifier is not None:
            nursery.start_soon(basis.faults.keep, "the keys of tokens", access.verifier.run)
        if taking_back.is_needed:
            await taking_back.begin()
            nursery.start_soon(basis.faults.keep, "revocations", taking_back.run)
        return shared

    async def _knows_task(self, channel: str) -> bool:
        assert self._calls is not None, "nobody is admitted before the start"
        return await self._calls.knows(channel)

    def _make_talk(self, channels: ChannelParts, nursery: trio.Nursery) -> Talk:
        basis = self._basis
        talk = Talk(basis.bus, channels.hub, basis.registry.find, basis.members, self.admittance.permissions, nursery)
        nursery.start_soon(basis.faults.keep, "receipts", talk.taken.run)
        return talk

    def _share(self, channels: ChannelParts, talk: Talk, nursery: trio.Nursery) -> ConnectionShared:
        """Make what all connections share, and start what runs in the background."""
        basis, places = self._basis, self.admittance.places
        settings, keep = basis.settings, basis.faults.keep
        outboxes = OutboxShared(
            nursery,
            basis.counters,
            basis.hits,
            max_bytes=settings.outbox_bytes,
            max_messages=settings.outbox_messages,
            on_fault=basis.faults.report,
        )
        self._calls = Calls(basis.bus, basis.namespaces, channels.joining, timeout=settings.call_timeout)
        answering = AnsweringParts(self._calls, self._own, self._managing, talk)
        store, expiry = SessionStore(basis.bus), Expiry(self.admittance.access.tokens.grace)
        commands = start_commands(basis, self.admittance, channels, answering, store, expiry, nursery)
        self._start_management(channels, commands, self._calls, nursery)
        nursery.start_soon(keep, "the session store", store.run)
        nursery.start_soon(keep, "the heartbeat", basis.registry.beat)
        nursery.start_soon(keep, "the end of tokens", expiry.run)
        nursery.start_soon(keep, "the places of users", places.run)
        return ConnectionShared(
            settings=settings,
            limits=Limits(message=settings.max_message_bytes, subscriptions=settings.max_subscriptions),
            counters=basis.counters,
            hits=basis.hits,
            outboxes=outboxes,
            commands=commands,
            store=store,
            events=basis.events,
            expiry=expiry,
            rate=Rate(settings.messages_per_second, settings.bytes_per_second, settings.reading_share),
            lane=SlowLane(),
            places=places,
        )

    def _start_management(
        self, channels: ChannelParts, commands: Commands, calls: Calls, nursery: trio.Nursery
    ) -> None:
        """Start what tells the control process about this worker, and what does as it says."""
        basis = self._basis
        keep = basis.faults.keep
        management = Management(
            bus=basis.bus,
            members=basis.members,
            namespaces=basis.namespaces,
            registry=basis.registry,
            hub=channels.hub,
            presence=channels.presence,
            paging=channels.paging,
            joining=channels.joining,
            counters=basis.counters,
            faults=basis.faults,
            nursery=nursery,
            commands=commands,
            calls=calls,
            unrecorded=channels.monitor.unrecorded,
            known_shares=channels.monitor.known_shares,
            catch_up=channels.monitor.catch_up,
        )
        feed = Feed(basis.bus, channels.hub, basis.events, basis.members.own.name)
        nursery.start_soon(keep, "management", management.run)
        nursery.start_soon(keep, "connections to the control process", self.control.run)
        nursery.start_soon(keep, "what the monitor is told", feed.run)
        nursery.start_soon(keep, "the keys of those who watch", self._managing.run)
