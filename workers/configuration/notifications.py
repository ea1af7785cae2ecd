"""The settings of notifications: the table `[notifications]`, and those in it."""

import re
from collections.abc import Mapping
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from fanline.protocol.notifications.notification import (
    ADMINS,
    GROUP_MARK,
    Name,
    NotificationChannel,
    NotificationLevel,
)
from fanline.protocol.notifications.policy import LEVELS, PLACEHOLDERS, placeholders
from fanline.protocol.notifications.preferences import QuietHours
from fanline.protocol.notifications.templates import TEMPLATES, NotificationTemplate
from fanline.protocol.text import explain
from fanline.workers.errors import SettingsError

UrlText = Annotated[str, Meta(min_length=3, max_length=2000, description="URLs of Apprise")]
_SCHEME = re.compile(r"[a-z][a-z0-9]*://\S+", re.IGNORECASE)
_CHANNELS = " or ".join(f'"{each}"' for each in NotificationChannel)


class NotificationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """By which ways notifications reach users."""

    email: tuple[UrlText, ...] = ()
    """By which e-mail leaves, as in `mailtos://me:password@example.com?to={email}`; `{user}`, `{email}`, `{phone}` and
    `{push}` stand for the user's name and addresses.
    """
    sms: tuple[UrlText, ...] = ()
    """By which SMS leave, as in `twilio://SID:TOKEN@FROM/{phone}`."""
    push: tuple[UrlText, ...] = ()
    """By which push notifications leave, as in `ntfys://ntfy.example.com/{push}`."""
    per_hour: Annotated[int, Meta(ge=0)] = 60
    """Notifications that a user gets in an hour by each of these channels; further ones are given up. 0: any number."""
    deduplicate: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0
    """Seconds within which a user gets a template (or title) with the same `key` only once."""
    give_up: Annotated[float, Meta(ge=1, le=86_400)] = 3600.0
    """Seconds for which a dispatch is tried again that has failed."""
    quiet_hours: Annotated[str, Meta(max_length=11)] = ""
    """When e-mail, SMS and push wait unless they are urgent, as in `22:00-07:00`; users may have their own. Empty:
    never.
    """
    quiet_zone: Annotated[str, Meta(min_length=1, max_length=64)] = "UTC"
    """The time zone of quiet_hours, as in `Europe/Berlin`."""
    levels: dict[NotificationLevel, tuple[NotificationChannel, ...]] = {}
    """Level -> by which channels it goes, in place of the default ones."""
    templates: dict[str, NotificationTemplate] = {}
    """Name -> template, in addition to the default ones, or in their place."""
    groups: dict[str, tuple[str, ...]] = {}
    """Name -> users: `@NAME` notifies them."""

    @property
    def all_templates(self) -> Mapping[str, NotificationTemplate]:
        """Those of every server, and those of the settings."""
        return {**TEMPLATES, **self.templates}

    @property
    def all_levels(self) -> Mapping[NotificationLevel, tuple[NotificationChannel, ...]]:
        """The same for levels."""
        return {**LEVELS, **self.levels}

    @property
    def quiet(self) -> QuietHours | None:
        """The quiet hours of users that have none of their own."""
        begins, _, ends = self.quiet_hours.partition("-")
        return QuietHours(begins=begins, ends=ends, zone=self.quiet_zone) if self.quiet_hours else None

    def urls(self, channel: NotificationChannel) -> tuple[str, ...]:
        """Those of a channel."""
        by_channel = {
            NotificationChannel.EMAIL: self.email,
            NotificationChannel.SMS: self.sms,
            NotificationChannel.PUSH: self.push,
        }
        return by_channel.get(channel, ())


def is_zone(name: str) -> bool:
    """Whether this is a time zone that the machine knows."""
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):  # ZoneInfoNotFoundError is a KeyError; a directory's name is an OSError
        return False
    return True


def check_notifications(settings: NotificationSettings) -> None:
    """Raises SettingsError, naming the setting. It quotes no URL, as that may hold a password."""
    for name in ("email", "sms", "push"):
        urls: tuple[str, ...] = getattr(settings, name)
        for number, url in enumerate(urls, 1):
            _check_url(url, f"notifications.{name} number {number}")
        if len(set(urls)) < len(urls):
            raise SettingsError(f"notifications.{name}: two URLs are the same")
    if settings.quiet_hours:
        try:
            msgspec.convert(msgspec.structs.asdict(settings.quiet or QuietHours(begins="", ends="")), QuietHours)
        except msgspec.ValidationError:
            raise SettingsError("notifications.quiet_hours: expected two times, as in 22:00-07:00") from None
    if not is_zone(settings.quiet_zone):
        raise SettingsError(f"notifications.quiet_zone: there is no time zone {settings.quiet_zone!r}")


def _check_url(url: str, where: str) -> None:
    if _SCHEME.fullmatch(url) is None:
        raise SettingsError(f"{where}: expected a URL of Apprise, as in ntfys://ntfy.example.com/{{push}}")
    if unknown := sorted(placeholders(url) - set(PLACEHOLDERS)):
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise SettingsError(f"{where}: there is no placeholder {{{unknown[0]}}}; there are {known}")


def read_levels(table: object, source: str) -> dict[NotificationLevel, tuple[NotificationChannel, ...]]:
    """The table `[notifications.levels]`. Raises SettingsError."""
    try:
        return msgspec.convert(table, dict[NotificationLevel, tuple[NotificationChannel, ...]])
    except msgspec.ValidationError:
        levels = ", ".join(NotificationLevel)
        raise SettingsError(
            f"bad value for [notifications.levels] in {source}: expected, for {levels}, a list of {_CHANNELS}"
        ) from None


def read_templates(table: object, source: str) -> dict[str, NotificationTemplate]:
    """The tables `[notifications.templates.NAME]`. Raises SettingsError."""
    try:
        return msgspec.convert(table, dict[Name, NotificationTemplate])
    except msgspec.ValidationError as error:
        raise SettingsError(f"bad value for [notifications.templates.NAME] in {source}: {explain(error)}") from None


def read_groups(table: object, source: str) -> dict[str, tuple[str, ...]]:
    """The table `[notifications.groups]`. Raises SettingsError."""
    example = f'{ADMINS.removeprefix(GROUP_MARK)} = ["anna", "ben"]'
    try:
        groups = msgspec.convert(table, dict[Name, tuple[Name, ...]])
    except msgspec.ValidationError:
        raise SettingsError(
            f"bad value for [notifications.groups] in {source}: expected lists of users, as in {example}"
        ) from None
    if any(member.startswith(GROUP_MARK) or member == "*" for members in groups.values() for member in members):
        raise SettingsError(f"[notifications.groups] in {source}: a group has users, and no other groups")
    return groups
