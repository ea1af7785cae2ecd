"""A user's addresses, and how the user wants to be notified."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fanline.protocol.notifications.notification import Name, NotificationChannel, NotificationLevel, expectation
from fanline.protocol.text import explain

TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
Email = Annotated[str, Meta(max_length=254, pattern=r"^[^@\s<>,;:\"\\]+@[^@\s<>,;:\"\\/?#]+\Z")]
Phone = Annotated[str, Meta(pattern=r"^\+[1-9][0-9]{4,14}\Z")]
"""E.164."""
PushName = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^(?!\.{1,2}\Z)[A-Za-z0-9_.:@+~-]+\Z")]


class QuietHours(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When e-mail, SMS and push wait, unless a notification is urgent."""

    begins: TimeOfDay
    """As in `22:00`."""
    ends: TimeOfDay
    """On the next day if it is not later; the same as `begins`: never quiet."""
    zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    """A time zone of the IANA database, as in `Europe/Berlin`."""


class Preferences(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Of one user. Whatever is left out is as the settings say."""

    user: Name
    email: Email | None = None
    phone: Phone | None = None
    """With its country, as in `+4915112345678`."""
    push: PushName | None = None
    """What stands for `{push}` in the settings' URLs: a topic, a device, a user key."""
    channels: dict[NotificationLevel, tuple[NotificationChannel, ...]] = {}
    """Level -> the channels that its notifications go by; none: they do not come at all."""
    quiet_hours: QuietHours | None = None


class BadPreferencesError(Exception):
    """The data is not valid preferences; str() is one sentence."""


_EXPECTED = {
    "email": "an address like anna@example.com",
    "phone": "a number with its country, like +4915112345678",
    "push": "a name of A-Z, a-z, 0-9 and _ . : @ + ~ -, and neither . nor ..",
    "quiet_hours.begins": "a time like 22:00",
    "quiet_hours.ends": "a time like 07:00",
}
_preferences = msgspec.json.Decoder(Preferences)


def decode_preferences(payload: bytes) -> Preferences:
    """Raises BadPreferencesError."""
    try:
        return _preferences.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadPreferencesError(expectation(str(error), _EXPECTED) or explain(error)) from None
