"""The calls about notifications: requests, what users have received and read, preferences, and dead notifications."""

import secrets
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from pydantic import ConfigDict, Field

from fanline.engine.bus.errors import StorageFullError, TooLargeError
from fanline.protocol.auth.api_keys import ApiRight
from fanline.protocol.errors import MessageError
from fanline.protocol.nats.names import NOTIFY_SUBJECT, producer_store_id
from fanline.protocol.notifications.notification import (
    EVERYBODY,
    GROUP_MARK,
    BadNotificationError,
    Notification,
    NotificationChannel,
    NotificationLevel,
    decode_notification,
    encode_notification,
)
from fanline.protocol.notifications.preferences import BadPreferencesError, decode_preferences
from fanline.protocol.notifications.templates import render
from fanline.protocol.values import check_value
from fanline.workers.configuration.notifications import is_zone
from fanline.workers.control.api.models import ApiModel, ApiPage
from fanline.workers.control.api.parameters import NAME, After, Limit, UserId
from fanline.workers.control.http.callers import acting, needing
from fanline.workers.control.http.problems import ApiError, refused, unavailable
from fanline.workers.control.http.requests import StrictRoute
from fanline.workers.control.parts import Parts

looking = APIRouter(dependencies=[Depends(needing(ApiRight.READ))])
asking = APIRouter(route_class=StrictRoute, dependencies=[Depends(acting(ApiRight.PUBLISH))])
seeing_addresses = APIRouter(dependencies=[Depends(needing(ApiRight.PREFERENCES))])
setting_addresses = APIRouter(route_class=StrictRoute, dependencies=[Depends(acting(ApiRight.PREFERENCES))])
ROUTERS = (looking, asking, seeing_addresses, setting_addresses)


class NewNotification(ApiModel):
    """A notification to be sent; it needs a title, a message or a template."""

    user: Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)]
    """A user's name; `*` for all users; `@NAME` for a group of the settings."""
    title: Annotated[str, Field(max_length=300)] = ""
    message: Annotated[str, Field(max_length=10_000)] = ""
    level: NotificationLevel | None = None
    """null: that of the template, or else `info`."""
    channels: Annotated[list[NotificationChannel], Field(min_length=1, max_length=4)] | None = None
    """null: those of the user's preferences, or else of the settings, for the level."""
    action_url: Annotated[str, Field(max_length=2000)] | None = None
    """A URL, or a path of your application."""
    auto_close: bool | Annotated[float, Field(ge=0, le=86_400)] = False
    """Whether it disappears by itself, or after how many seconds."""
    data: Annotated[dict[str, Any], Field(max_length=100)] | None = None
    """Fields of your own."""
    template: Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)] | None = None
    parameters: Annotated[dict[str, str | int | float | bool | None], Field(max_length=100)] | None = None
    """What the template's placeholders stand for."""
    key: Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)] | None = None
    """A user gets the same template (or title) with the same key only once within a time from the settings."""
    id: Annotated[str, Field(min_length=1, max_length=128, pattern=NAME)] | None = None
    """Requests with the same one, for the same user, are one. null: the server makes one."""


class AskedNotification(ApiModel):
    """A notification that was accepted, and will be sent."""

    id: str


class UserNotification(ApiModel):
    """The fields that clients get, and `read`. A program that publishes a `notification` may add others."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="allow")

    id: str
    timestamp: str | None
    type: Any
    """The level."""
    title: Any
    message: Any
    auto_close: Any
    action_url: Any = None
    data: Any = None
    read: bool


class UserNotifications(ApiModel):
    """What a user was notified of."""

    items: list[UserNotification]
    """Newest first."""
    unread: int
    """Of all."""
    next: str | None
    """Pass it as `before` for the next page; null: this is the last one."""


class ReadMarks(ApiModel):
    """What a user has read."""

    ids: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=1000)] | None = None
    """null: all that are there."""


class UnreadCount(ApiModel):
    """What is left."""

    unread: int


class QuietTimes(ApiModel):
    """When e-mail, SMS and push wait, unless a notification is urgent."""

    begins: Annotated[str, Field(max_length=5, description="As in `22:00`.")]
    ends: Annotated[str, Field(max_length=5, description="On the next day if it is not later.")]
    zone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    """As in `Europe/Berlin`."""


class UserPreferences(ApiModel):
    """A user's addresses and preferences. For what is null, the settings apply."""

    email: Annotated[str, Field(max_length=254)] | None = None
    phone: Annotated[str, Field(max_length=16)] | None = None
    """With its country, as in `+4915112345678`."""
    push: Annotated[str, Field(max_length=200)] | None = None
    """What stands for `{push}` in the settings' URLs."""
    channels: dict[NotificationLevel, list[NotificationChannel]] | None = None
    """Level -> the channels of its notifications; an empty list: they are not sent at all."""
    quiet_hours: QuietTimes | None = None


class GivenUp(ApiModel):
    """A notification that was given up."""

    number: int
    """By which it can be tried again."""
    time: str
    reason: str
    user_id: str | None
    id: str | None
    channel: NotificationChannel | None
    """null: the whole request."""
    attempts: int
    title: str | None
    request: Any = None
    """The request, if it could not be understood."""


class TriedAgain(ApiModel):
    """A dispatch that is tried again."""

    number: int


@asking.post("/notify")
async def notify(parts: Parts, wanted: NewNotification) -> AskedNotification:
    """Notify a user, a group or all users. The notification is stored, and sent by WebSocket, e-mail, SMS and push,
    depending on the request, preferences and settings.
    """
    asked = _notification(wanted)
    payload = encode_notification(asked)
    try:
        render(asked, parts.notifications.settings.all_templates)
        await parts.notifications.work.put(NOTIFY_SUBJECT, payload, producer_store_id(asked.user, asked.id or ""))
    except BadNotificationError as error:
        raise ApiError(422, "invalid", str(error), where="body") from None
    except TooLargeError as error:
        raise ApiError(413, "too_large", str(error)) from None
    except StorageFullError as error:
        raise unavailable(str(error)) from None
    return AskedNotification(id=asked.id or "")


@looking.get("/users/{user_id}/notifications")
async def notifications(
    parts: Parts,
    user_id: UserId,
    limit: Limit = 100,
    before: Annotated[str | None, Query(max_length=128, pattern=NAME, description="`next` of the page before.")] = None,
    unread: Annotated[bool, Query(description="Only what is unread.")] = False,
) -> UserNotifications:
    """The notifications that a user still has, newest first, and how many are unread."""
    try:
        page = await parts.notifications.received.page(user_id, limit, before, unread_only=unread)
    except MessageError as error:
        raise refused(error.code, str(error)) from None
    found = [UserNotification.model_validate(each) for each in page.notifications]
    return UserNotifications(items=found, unread=page.unread, next=found[-1].id if page.more and found else None)


@asking.post("/users/{user_id}/notifications/read")
async def mark_notifications_read(parts: Parts, user_id: UserId, wanted: ReadMarks | None = None) -> UnreadCount:
    """Mark notifications as read; the user's connections get an event."""
    try:
        ids = None if wanted is None else wanted.ids
        return UnreadCount(unread=await parts.notifications.received.mark_read(user_id, ids))
    except MessageError as error:
        raise refused(error.code, str(error)) from None


@seeing_addresses.get("/users/{user_id}/preferences")
async def preferences(parts: Parts, user_id: UserId) -> UserPreferences:
    """A user's addresses and preferences."""
    found = await parts.notifications.preferences.find(user_id)
    known = {} if found is None else {**msgspec.to_builtins(found)}
    known.pop("user", None)
    return UserPreferences.model_validate(known)


@setting_addresses.post("/users/{user_id}/preferences")
async def set_preferences(parts: Parts, user_id: UserId, wanted: UserPreferences) -> UserPreferences:
    """Replace all preferences of a user."""
    if user_id == EVERYBODY or user_id.startswith(GROUP_MARK):
        message = f"{user_id} stands for several users: each has preferences of its own"
        raise ApiError(422, "invalid", message, where="path.user_id")
    given = wanted.model_dump(mode="json", exclude_none=True)
    try:
        checked = decode_preferences(msgspec.json.encode({"user": user_id, **given}))
    except BadPreferencesError as error:
        raise ApiError(422, "invalid", str(error), where="body") from None
    if checked.quiet_hours is not None and not is_zone(checked.quiet_hours.zone):
        message = f"there is no time zone {checked.quiet_hours.zone!r}"
        raise ApiError(422, "invalid", message, where="body.quiet_hours.zone", advice="Write it as in Europe/Berlin.")
    await parts.notifications.preferences.set(checked)
    return wanted


@setting_addresses.delete("/users/{user_id}/preferences")
async def remove_preferences(parts: Parts, user_id: UserId) -> UserPreferences:
    """Delete a user's addresses and preferences."""
    await parts.notifications.preferences.remove(user_id)
    return UserPreferences()


@looking.get("/notifications/dead")
async def dead_notifications(parts: Parts, after: After = "", limit: Limit = 100) -> ApiPage[GivenUp]:
    """The notifications that were given up, oldest first."""
    if after and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ApiError(422, "invalid", "`after` is the `next` of another page", where="query.after")
    found = await parts.notifications.dead.list(int(after or 0), limit)
    items = [
        GivenUp(
            number=kept.number,
            time=kept.time,
            reason=kept.dead.reason,
            user_id=kept.dead.user,
            id=kept.dead.id,
            channel=kept.dead.channel,
            attempts=kept.dead.attempts,
            title=None if kept.dead.dispatch is None else kept.dead.dispatch.title,
            request=kept.dead.request,
        )
        for kept in found
    ]
    # A page of large ones ends before its limit.
    is_last = not found or not await parts.notifications.dead.list(found[-1].number, 1)
    return ApiPage(items=items, next=None if is_last else str(found[-1].number), total=None)


@asking.post("/notifications/dead/{number}/retry")
async def retry_dead_notification(
    parts: Parts, number: Annotated[int, Path(ge=1, le=2**62, description="As in `notifications/dead`.")]
) -> TriedAgain:
    """Try again to deliver a dispatch that was given up."""
    if not await parts.notifications.dead.try_again(number):
        raise ApiError(404, "not_found", "no dispatch was given up under this number", where="path.number")
    return TriedAgain(number=number)


def _notification(wanted: NewNotification) -> Notification:
    """Raises ApiError 422."""
    try:
        check_value(wanted.data)
        given = {"id": secrets.token_urlsafe(12)} | wanted.model_dump(mode="json", exclude_none=True)
        return decode_notification(msgspec.json.encode(given))
    except (MessageError, BadNotificationError) as error:
        raise ApiError(422, "invalid", str(error), where="body") from None
