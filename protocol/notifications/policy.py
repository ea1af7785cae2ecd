"""Where a notification goes, and when. Pure: the time is an argument."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, time, timedelta, tzinfo
from urllib.parse import quote

from fanline.protocol.notifications.notification import Notification, NotificationChannel, NotificationLevel
from fanline.protocol.notifications.preferences import Preferences, QuietHours

_WEBSOCKET, _EMAIL, _SMS, _PUSH = NotificationChannel
LEVELS: Mapping[NotificationLevel, tuple[NotificationChannel, ...]] = {
    NotificationLevel.INFO: (_WEBSOCKET,),
    NotificationLevel.SUCCESS: (_WEBSOCKET,),
    NotificationLevel.WARNING: (_WEBSOCKET, _EMAIL),
    NotificationLevel.ERROR: (_WEBSOCKET, _EMAIL),
    NotificationLevel.URGENT: (_WEBSOCKET, _EMAIL, _SMS, _PUSH),
}
"""By which channels each level goes where neither settings nor preferences say it."""
OUTER = (_EMAIL, _SMS, _PUSH)
"""The channels that leave the server, through URLs of the settings."""
ADDRESSES = {_EMAIL: "e-mail address", _SMS: "phone number", _PUSH: "push address"}
PLACEHOLDERS = ("user", "email", "phone", "push")
"""What a URL of the settings may have in braces."""
_DOTS = (".", "..")
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_ONE_ADDRESS = re.compile(r"(?!@)[^\s,;:<>()\[\]\"'\\]+")
_WHOLE = ("json", "jsons", "xml", "xmls", "form", "forms")
"""Schemes of URLs that are used as they are. Apprise looks for lists in others, and for names beside addresses."""


def chosen_channels(
    asked: Notification,
    level: NotificationLevel,
    preferences: Preferences | None,
    levels: Mapping[NotificationLevel, Sequence[NotificationChannel]],
) -> tuple[NotificationChannel, ...]:
    """Those that the request names go before the user's preferences, and these before the settings."""
    if asked.channels is not None:
        chosen: Sequence[NotificationChannel] = asked.channels
    elif preferences is not None and level in preferences.channels:
        chosen = preferences.channels[level]
    else:
        chosen = levels.get(level, LEVELS[level])
    return tuple(dict.fromkeys(chosen))


def placeholders(url: str) -> set[str]:
    """What a URL of the settings has in braces."""
    return set(_PLACEHOLDER.findall(url))


def addresses(user: str, preferences: Preferences | None) -> dict[str, str]:
    """What the placeholders stand for, as far as it is known. A name that is only dots would make another path of a
    URL, however it is quoted, so a user called that has none.
    """
    known = {} if user in _DOTS else {"user": user}
    if preferences is not None:
        given = {"email": preferences.email, "phone": preferences.phone, "push": preferences.push}
        known |= {name: value for name, value in given.items() if value is not None}
    return known


def filled_url(url: str, known: Mapping[str, str]) -> str | None:
    """The URL for a user; None if it needs what is not known. No value can become another part of the URL."""
    if placeholders(url) - known.keys():
        return None
    return _PLACEHOLDER.sub(lambda found: quote(known[found[1]], safe=""), url)


def misread_address(url: str, known: Mapping[str, str]) -> str | None:
    """The placeholder of a URL whose value Apprise would take for several addresses, or for another one: it reads
    o'brien@example.com as brien@example.com, with the name o, and a user called Anna Smith as the two, Anna and Smith.
    """
    if url.partition("://")[0].lower() in _WHOLE:
        return None
    open_ones = sorted(placeholders(url) & {"user", "email"} & known.keys())
    return next((name for name in open_ones if _ONE_ADDRESS.fullmatch(known[name]) is None), None)


def quiet_until(now: datetime, hours: QuietHours | None, zone: tzinfo) -> datetime | None:
    """When the quiet hours end that `now` lies in; None outside of them. `now` knows its time zone."""
    if hours is None or hours.begins == hours.ends:
        return None
    for begins, ends in _around(now.astimezone(zone), hours):
        if begins <= now < ends:
            return ends
    return None


def _around(local: datetime, hours: QuietHours) -> Iterator[tuple[datetime, datetime]]:
    """The quiet hours that begin yesterday and today."""
    first, last = time.fromisoformat(hours.begins), time.fromisoformat(hours.ends)
    for days in (-1, 0):
        day = local.date() + timedelta(days=days)
        next_day = day if first < last else day + timedelta(days=1)
        yield datetime.combine(day, first, local.tzinfo), datetime.combine(next_day, last, local.tzinfo)
