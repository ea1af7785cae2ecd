"""A notification as a program asks for it: JSON on the subject NOTIFY_SUBJECT, which a stream keeps until it is sent.

docs/reference/notifications.md lists the fields; a test compares.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta

from fanline.protocol.text import NAME_PATTERN, explain

EVERYBODY = "*"
"""In place of a user: all users."""
GROUP_MARK = "@"
"""Before the name of a group of the settings, in place of a user."""
ADMINS = f"{GROUP_MARK}admins"
"""The group that the server itself notifies, of alarms for one."""
MAX_BYTES = 64 * 1024
"""Of a request, as JSON."""
_MAX_PART_BYTES = 4 * MAX_BYTES
"""Of one that the server makes of a request for several users: it says more, and may write numbers at more length."""


class _InAnyCase(StrEnum):
    """Names that a program may write in upper case."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        lowered = str(value).lower()
        return None if lowered == value else cls(lowered)


class NotificationLevel(_InAnyCase):
    """How much a notification matters. It decides by which channels it goes."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    ERROR = "error"
    URGENT = "urgent"


class NotificationChannel(_InAnyCase):
    """A way by which a notification reaches its user."""

    WEBSOCKET = "websocket"
    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"


Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=NAME_PATTERN)]
_URL = r"^(?i:(?!javascript:|data:|vbscript:)[a-z][a-z0-9+.\-]*:|/|#|\?)\S*\Z"
ActionUrl = Annotated[str, Meta(max_length=2000, pattern=_URL)]


class Notification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a program asks for. Unknown fields are ignored."""

    user: Name
    """A user's name; `*` for all users; `@NAME` for a group of the settings."""
    title: Annotated[str, Meta(max_length=300)] = ""
    message: Annotated[str, Meta(max_length=10_000)] = ""
    level: NotificationLevel | None = None
    """None: that of the template, or else `info`."""
    channels: tuple[NotificationChannel, ...] | None = None
    """The channels that it goes by, whatever the level and the user's preferences say; None: as they say."""
    action_url: ActionUrl | None = None
    """Where a click leads to: a URL, or a path of the application's."""
    auto_close: bool | Annotated[float, Meta(ge=0, le=86_400)] = False
    """Whether it disappears by itself, or after how many seconds."""
    data: dict[str, Any] = {}
    """Fields of the application's own; clients get them as `data`."""
    template: Name | None = None
    """The template that title, message and level are made from, where they are not given."""
    parameters: dict[str, str | int | float | bool | None] = {}
    """What the template's placeholders stand for."""
    key: Name | None = None
    """With the same one, a user gets the same template (or title) only once within a time that the settings say."""
    id: Name | None = None
    """Requests with the same one, for the same user, are one. None: the server makes one."""
    member_of: Name | None = None
    """Set by the server, in what it makes of a notification to all users, or to a group: whom that was for."""

    @property
    def is_for_one(self) -> bool:
        """Whether it is for one user, whose name it says."""
        return self.user != EVERYBODY and not self.user.startswith(GROUP_MARK)


_EXPECTED = {"action_url": "a URL or a path, and none that runs a script"}
_WHERE = re.compile(r"at `\$\.([\w.]+)`\Z")


def expectation(complaint: str, expected: Mapping[str, str]) -> str:
    """What msgspec complains of in words for people, if it is about one of these fields; else nothing."""
    where = _WHERE.search(complaint)
    known = None if where is None else expected.get(where[1])
    return f"{where[1]}: expected {known}" if where is not None and known is not None else ""


class BadNotificationError(Exception):
    """A request for a notification cannot be carried out; str() is one sentence."""


_notifications = msgspec.json.Decoder(Notification)


def encode_notification(notification: Notification) -> bytes:
    """The payload. BadNotificationError for what no server would accept."""
    try:
        payload = msgspec.json.encode(notification)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadNotificationError(f"data: {error}") from None
    decode_notification(payload)
    return payload


def decode_notification(payload: bytes) -> Notification:
    """Raises BadNotificationError."""
    if len(payload) > _MAX_PART_BYTES:
        raise _too_large(payload)
    try:
        notification = _notifications.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        if len(payload) > MAX_BYTES:
            raise _too_large(payload) from None
        raise BadNotificationError(expectation(str(error), _EXPECTED) or explain(error)) from None
    if len(payload) > MAX_BYTES and notification.member_of is None:
        raise _too_large(payload)
    if not (notification.title or notification.message or notification.template):
        raise BadNotificationError("it needs a title, a message or a template")
    if notification.channels == ():
        raise BadNotificationError("channels: name at least one, or leave it out")
    return notification


def _too_large(payload: bytes) -> BadNotificationError:
    return BadNotificationError(f"it has {len(payload)} bytes, and may have {MAX_BYTES}")
