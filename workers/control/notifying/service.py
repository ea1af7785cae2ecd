"""Notifications of one server, put together."""

import trio

from fanline.engine.bus.interface import Bus
from fanline.engine.bus.work import WorkQueue, WorkQueues
from fanline.engine.namespaces import Namespaces
from fanline.engine.notifications.preferences import PreferenceStore
from fanline.engine.notifications.received import ReceivedNotifications
from fanline.protocol.nats.names import DISPATCHES_STREAM, NOTIFICATIONS_STREAM, NOTIFY_SUBJECT, dispatch_subject
from fanline.protocol.notifications.policy import OUTER
from fanline.workers.configuration.notifications import NotificationSettings
from fanline.workers.control.notifying.dead import DeadNotifications
from fanline.workers.control.notifying.dispatcher import Dispatcher
from fanline.workers.control.notifying.inbox import NotificationInbox
from fanline.workers.control.notifying.notifier import Notifier, user_of
from fanline.workers.control.notifying.records import Records
from fanline.workers.control.notifying.sender import AT_ONCE, Sender
from fanline.workers.control.notifying.taking import QueueJob, QueueWorker

_REQUESTS = WorkQueue(NOTIFICATIONS_STREAM, NOTIFY_SUBJECT, "notifier")
_REQUESTS_AT_ONCE, _REQUESTS_IN_HAND = 16, 4096


class Notifications:
    """What the API needs, and what works in the background."""

    def __init__(self, settings: NotificationSettings, bus: Bus, work: WorkQueues, namespaces: Namespaces) -> None:
        self.settings = settings
        self.work = work
        self.received = ReceivedNotifications(bus, namespaces)
        self.preferences = PreferenceStore(bus)
        records = Records(bus)
        self.dead = DeadNotifications(self.work)
        inbox = NotificationInbox(bus, self.received, namespaces)
        self._notifier = Notifier(settings, self.work, records, self.preferences, inbox, self.dead)
        self._sender = Sender(settings)
        self._dispatcher = Dispatcher(self._sender, records, self.preferences, self.dead, settings.give_up)

    def start(self, nursery: trio.Nursery) -> None:
        """Send notifications from now on."""
        # Who hears that a device is offline, and online again, hears it in this order.
        deciding = QueueJob(self._notifier.perform, _REQUESTS_AT_ONCE, _REQUESTS_IN_HAND, user_of)
        nursery.start_soon(QueueWorker(self.work, _REQUESTS, deciding).run)
        served = [channel for channel in OUTER if self.settings.urls(channel)]
        for channel in served:
            queue = WorkQueue(DISPATCHES_STREAM, dispatch_subject(channel), channel)
            leaving = QueueJob(self._dispatcher.perform, AT_ONCE, AT_ONCE)
            nursery.start_soon(QueueWorker(self.work, queue, leaving).run)
        if served:
            nursery.start_soon(self._sender.check)
