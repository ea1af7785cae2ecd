"""Decides by which channels a notification goes, and when: by its request, the user's preferences, and the settings."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from fanline.engine.notifications.preferences import PreferenceStore
from fanline.protocol.notifications.dispatches import (
    DeadNotification,
    Dispatch,
    NotificationDecision,
    dead_dispatch,
    url_name,
)
from fanline.protocol.notifications.notification import (
    EVERYBODY,
    GROUP_MARK,
    Notification,
    NotificationChannel,
    NotificationLevel,
)
from fanline.protocol.notifications.policy import (
    ADDRESSES,
    OUTER,
    addresses,
    chosen_channels,
    filled_url,
    placeholders,
    quiet_until,
)
from fanline.protocol.notifications.preferences import Preferences
from fanline.protocol.notifications.templates import RenderedNotification
from fanline.workers.configuration.notifications import NotificationSettings, is_zone
from fanline.workers.control.notifying.records import Records

_WEBSOCKET = NotificationChannel.WEBSOCKET


class Decider:
    """Of one server."""

    def __init__(self, settings: NotificationSettings, records: Records, preferences: PreferenceStore) -> None:
        self._settings = settings
        self._levels = settings.all_levels
        self._records = records
        self._preferences = preferences

    async def decide(
        self, asked: Notification, shown: RenderedNotification, notification: str, request: str
    ) -> NotificationDecision:
        """For a user: the inbox, and a dispatch for each URL. For several: what they get in common. BusError."""
        preferences = await self._preferences.find(asked.user) if asked.is_for_one else None
        channels = chosen_channels(asked, shown.level, preferences, self._levels)
        inbox = _WEBSOCKET in channels and not asked.user.startswith(GROUP_MARK)
        decision = NotificationDecision(request=request, inbox=inbox, dispatches=[], refused=[])
        known, not_before = addresses(asked.user, preferences), self._not_before(shown.level, preferences)
        for channel in (each for each in channels if each in OUTER):
            urls = [url for url in self._settings.urls(channel) if _is_for(url, asked)]
            found = [
                _dispatch(asked, shown, notification, channel, url, not_before)
                for url in urls
                if filled_url(url, known) is not None
            ]
            if found and await self._is_too_much(asked, channel):
                reason = f"{asked.user} has got {self._settings.per_hour} notifications by {channel} in this hour"
                decision.refused.extend(dead_dispatch(each, reason, 0) for each in found)
            else:
                decision.dispatches.extend(found)
                decision.refused.extend(self._unreachable(asked, notification, channel, urls) if not found else [])
        return decision

    def _unreachable(
        self, asked: Notification, notification: str, channel: NotificationChannel, urls: list[str]
    ) -> list[DeadNotification]:
        """What is kept if a channel that was asked for leads nowhere. One that only the level has chosen may."""
        if asked.channels is None or not asked.is_for_one or asked.member_of == EVERYBODY:
            return []
        if urls:
            reason = f"{asked.user} has no {ADDRESSES[channel]}"
        elif self._settings.urls(channel):
            return []  # they are for the group as a whole
        else:
            reason = f"there is no URL in notifications.{channel}"
        return [DeadNotification(reason=reason, user=asked.user, id=notification, channel=channel)]

    def _not_before(self, level: NotificationLevel, preferences: Preferences | None) -> float:
        own = None if preferences is None else preferences.quiet_hours
        hours = own or self._settings.quiet
        if level is NotificationLevel.URGENT or hours is None or not is_zone(hours.zone):
            return 0.0
        until = quiet_until(datetime.now(UTC), hours, ZoneInfo(hours.zone))
        return 0.0 if until is None else until.timestamp()

    async def _is_too_much(self, asked: Notification, channel: NotificationChannel) -> bool:
        most = self._settings.per_hour
        return asked.is_for_one and bool(most) and await self._records.count(asked.user, channel) > most


def _is_for(url: str, asked: Notification) -> bool:
    """Whether a URL is for this request. One without an address, as of a chat room, gets what is for several users
    once, and not again for each of them.
    """
    if asked.member_of is not None:
        return bool(placeholders(url))
    return asked.is_for_one or not placeholders(url)


def _dispatch(
    asked: Notification,
    shown: RenderedNotification,
    notification: str,
    channel: NotificationChannel,
    url: str,
    not_before: float,
) -> Dispatch:
    return Dispatch(
        id=notification,
        user=asked.user,
        channel=channel,
        url=url_name(url),
        title=shown.title,
        message=shown.message,
        level=shown.level,
        action_url=shown.action_url,
        not_before=not_before,
    )
