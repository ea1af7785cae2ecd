"""The parts that perform what clients say."""

from typing import NamedTuple

import trio

from fanline.engine.assembly.admittance import Admittance
from fanline.engine.assembly.basis import Basis
from fanline.engine.assembly.channels import ChannelParts
from fanline.engine.channels.inbox import Acknowledgements
from fanline.engine.notifications.received import ReceivedNotifications
from fanline.engine.sessions.attending import Attending
from fanline.engine.sessions.calls.beside import Beside
from fanline.engine.sessions.calls.calls import Calls
from fanline.engine.sessions.calls.managing import Managing
from fanline.engine.sessions.calls.notified import NotificationCommands
from fanline.engine.sessions.calls.own import OwnCommands
from fanline.engine.sessions.commands.calls import CallCommands
from fanline.engine.sessions.commands.commands import Commands
from fanline.engine.sessions.commands.inboxes import InboxCommands
from fanline.engine.sessions.commands.subscriptions import SubscriptionCommands
from fanline.engine.sessions.identity.expiry import Expiry
from fanline.engine.sessions.identity.identification import Identification
from fanline.engine.sessions.publisher import ClientPublisher
from fanline.engine.sessions.store import SessionStore
from fanline.engine.sessions.talk.talk import Talk


class AnsweringParts(NamedTuple):
    """The parts that answer a client's calls to a task, to the application, or to the server."""

    calls: Calls
    own: OwnCommands
    managing: Managing
    talk: Talk


def start_commands(
    basis: Basis,
    admittance: Admittance,
    channels: ChannelParts,
    answering: AnsweringParts,
    store: SessionStore,
    expiry: Expiry,
    nursery: trio.Nursery,
) -> Commands:
    """Make them, and start what runs in the background."""
    bus, namespaces, audit, faults = basis.bus, basis.namespaces, basis.audit, basis.faults
    permissions, joining = admittance.permissions, channels.joining
    attending = Attending(joining, channels.presence, channels.online, permissions)
    notified = NotificationCommands(ReceivedNotifications(bus, namespaces))
    acknowledgements = Acknowledgements(bus)
    nursery.start_soon(faults.keep, "acknowledgements of inboxes", acknowledgements.run)
    subscriptions = SubscriptionCommands(
        permissions=permissions,
        removals=admittance.removals,
        attending=attending,
        audit=audit,
        joining=joining,
        store=store,
        hits=basis.hits,
        max_subscriptions=basis.settings.max_subscriptions,
    )
    calls = CallCommands(
        permissions=permissions,
        audit=audit,
        calls=answering.calls,
        own=answering.own,
        notified=notified,
        managing=answering.managing,
        beside=Beside(nursery, faults.report),
    )
    return Commands(
        subscriptions=subscriptions,
        inboxes=InboxCommands(bus, acknowledgements),
        identification=Identification(
            admittance.access, admittance.places, permissions, attending, expiry, audit, admittance.key_holders
        ),
        audit=audit,
        permissions=permissions,
        attending=attending,
        joining=joining,
        paging=channels.paging,
        namespaces=namespaces,
        publisher=ClientPublisher(bus, namespaces),
        calls=calls,
        managing=answering.managing,
        notified=notified,
        talk=answering.talk,
        counters=basis.counters,
        on_fault=faults.report,
    )
