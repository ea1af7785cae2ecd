"""Decides about requests for notifications, and carries the decisions out.

    request -> decision, recorded -> the user's inbox, and a dispatch for each way out -> the request is done

Each step can be repeated: whoever goes on after a process that was killed finds the decision, and stores nothing twice.
"""

import logging
from collections.abc import Iterable
from functools import partial

import msgspec

from fanline.engine.bus.errors import TooLargeError
from fanline.engine.bus.work import WorkItem, WorkQueues
from fanline.engine.log_pace import LogPace
from fanline.engine.notifications.preferences import PreferenceStore
from fanline.engine.notifications.received import channel_of
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import NOTIFY_SUBJECT, dispatch_subject, name_key
from fanline.protocol.notifications.dispatches import DeadNotification, dispatch_key
from fanline.protocol.notifications.notification import (
    EVERYBODY,
    GROUP_MARK,
    BadNotificationError,
    Notification,
    NotificationChannel,
    decode_notification,
    encode_notification,
)
from fanline.protocol.notifications.policy import OUTER, chosen_channels
from fanline.protocol.notifications.templates import RenderedNotification, render
from fanline.protocol.values import check_value
from fanline.workers.configuration.notifications import NotificationSettings
from fanline.workers.control.notifying.dead import DeadNotifications
from fanline.workers.control.notifying.deciding import Decider
from fanline.workers.control.notifying.inbox import NotificationInbox
from fanline.workers.control.notifying.records import Records

_MOST_SHOWN = 200
"""Bytes that are kept of a request that cannot be kept as a whole."""
_log = logging.getLogger("fanline.notifications")


class _ForUser(msgspec.Struct):
    user: str


_for_user = msgspec.json.Decoder(_ForUser)


def user_of(item: WorkItem) -> str | None:
    """Whom a request is for; None if it does not say it."""
    try:
        return _for_user.decode(item.payload).user
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Notifier:
    """Of one server."""

    def __init__(
        self,
        settings: NotificationSettings,
        work: WorkQueues,
        records: Records,
        preferences: PreferenceStore,
        inbox: NotificationInbox,
        dead: DeadNotifications,
    ) -> None:
        self._settings = settings
        self._templates, self._levels = settings.all_templates, settings.all_levels
        self._work = work
        self._records = records
        self._preferences = preferences
        self._inbox = inbox
        self._dead = dead
        self._decider = Decider(settings, records, preferences)
        self._pace = LogPace()

    async def perform(self, item: WorkItem) -> None:
        """Do what a request asks for. BusError."""
        try:
            asked = decode_notification(item.payload)
            check_value(asked.data)
            await self._perform(item, asked, render(asked, self._templates))
        except (BadNotificationError, MessageError) as error:
            await self._refuse(item, str(error))
        except TooLargeError as error:  # its parameters may stand in a text many times
            await self._refuse(item, f"what it makes is too large: {error}")
        await item.done()

    async def _perform(self, item: WorkItem, asked: Notification, shown: RenderedNotification) -> None:
        request = f"{item.number}/{item.asked:.6f}"
        notification = asked.id or f"n{name_key(request)[:20]}"
        if not asked.user.startswith(GROUP_MARK):
            channel_of(asked.user)  # MessageError
        if asked.key is not None and asked.member_of is None:
            what = "\n".join((asked.template or asked.title, asked.key))
            if not await self._records.is_first(asked.user, what, request, self._settings.deduplicate):
                return

        decide = partial(self._decider.decide, asked, shown, notification, request)
        known = await self._records.decision(asked.user, notification, request, decide)
        if known is None:
            return
        decision, is_new = known
        if decision.inbox:
            await self._inbox.put(asked, shown, notification, again=not is_new)
        for dispatch in decision.dispatches:
            key = dispatch_key(dispatch)
            await self._work.put(dispatch_subject(dispatch.channel, key), msgspec.json.encode(dispatch), once=True)
        for dead in decision.refused:
            await self._dead.keep(name_key(msgspec.json.encode(dead).decode()), dead)
        await self._spread(asked, notification)

    # --- several users --------------------------------------------------------------------------------------------

    async def _spread(self, asked: Notification, notification: str) -> None:
        """Ask for a notification of each user of a group, or of each that can be reached outside the server."""
        if asked.user == EVERYBODY:
            for preferences in await self._preferences.users():
                level = render(asked, self._templates).level
                channels = chosen_channels(asked, level, preferences, self._levels)
                await self._ask(asked, notification, preferences.user, [each for each in channels if each in OUTER])
        elif asked.user.startswith(GROUP_MARK):
            members = self._settings.groups.get(asked.user.removeprefix(GROUP_MARK), ())
            if not members and self._pace.allows(asked.user):
                _log.warning("nobody is in the group %s: name its users in [notifications.groups]", asked.user)
            for member in members:
                await self._ask(asked, notification, member, asked.channels)

    async def _ask(
        self, asked: Notification, notification: str, user: str, channels: Iterable[NotificationChannel] | None
    ) -> None:
        chosen = None if channels is None else tuple(channels)
        if chosen == ():
            return
        part = msgspec.structs.replace(asked, user=user, id=notification, channels=chosen, member_of=asked.user)
        await self._work.put(NOTIFY_SUBJECT, encode_notification(part), f"{name_key(user)}/{name_key(notification)}")

    # --- what is not delivered ------------------------------------------------------------------------------------

    async def _refuse(self, item: WorkItem, reason: str) -> None:
        """Keep a request that can never be carried out, and go on."""
        if self._pace.allows(f"refused {reason}"):
            _log.error("a requested notification cannot be sent: %s", reason)
        try:
            request = msgspec.json.decode(item.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            request = repr(item.payload[:_MOST_SHOWN])
        known = request if isinstance(request, dict) else {}
        user, name = (value if isinstance(value := known.get(key), str) else None for key in ("user", "id"))
        dead = DeadNotification(reason=reason, user=user, id=name, request=request)
        key = name_key(f"request {item.number} {item.asked}")
        try:
            await self._dead.keep(key, dead)
        except TooLargeError:  # it was as large as NATS allows, and with the reason it is larger
            await self._dead.keep(key, msgspec.structs.replace(dead, request=repr(item.payload[:_MOST_SHOWN])))
