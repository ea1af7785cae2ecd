"""What is stored of a notification on its way: what was decided, what is to leave, and what was given up."""

from typing import Any

import msgspec

from fanline.protocol.nats.names import name_key
from fanline.protocol.notifications.notification import NotificationChannel, NotificationLevel


class Dispatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One notification, to leave once through one URL of the settings. It is tried, and given up, by itself.

    Addresses are not part of it: those that its user has when it is sent count.
    """

    id: str
    user: str
    channel: NotificationChannel
    url: str
    """Which URL of the settings: `url_name` of it. The URL itself may hold a password, and is not stored."""
    title: str
    message: str
    level: NotificationLevel
    action_url: str | None = None
    not_before: float = 0.0
    """Unix seconds; later than now in quiet hours."""
    again: int = 0
    """The number that it had among those that were given up, if it is tried again."""


class DeadNotification(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was given up."""

    reason: str
    user: str | None = None
    id: str | None = None
    channel: NotificationChannel | None = None
    """None: the whole request."""
    attempts: int = 0
    dispatch: Dispatch | None = None
    """With which it can be tried again."""
    request: Any = None
    """What was asked for, if it could not be decided."""


class NotificationDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided of a notification: it does not change, whatever happens before it is carried out."""

    request: str
    """Which request it was decided for. Another one with the same id is a repetition."""
    inbox: bool
    dispatches: list[Dispatch]
    refused: list[DeadNotification] = []
    """What does not leave, and why."""


def dead_dispatch(dispatch: Dispatch, reason: str, attempts: int) -> DeadNotification:
    """What is kept of a dispatch that was given up."""
    return DeadNotification(
        reason=reason,
        user=dispatch.user,
        id=dispatch.id,
        channel=dispatch.channel,
        attempts=attempts,
        dispatch=dispatch,
    )


def url_name(url: str) -> str:
    """Names a URL of the settings, and shows nothing of it."""
    return name_key(url)[:12]


def dispatch_key(dispatch: Dispatch) -> str:
    """The same for the same notification, user and URL, until it is given up and tried again."""
    again = (str(dispatch.again),) if dispatch.again else ()
    return name_key("\n".join((dispatch.user, dispatch.id, dispatch.channel, dispatch.url, *again)))
