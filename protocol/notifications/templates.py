"""Templates: a level, a title and a message with placeholders like `{device}`. Pure.

Placeholders are plain names, so that a template can show nothing but the parameters that it is given.
"""

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fanline.protocol.notifications.notification import (
    ActionUrl,
    BadNotificationError,
    Notification,
    NotificationLevel,
)

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_INFO, _SUCCESS, _WARNING, _ERROR, _URGENT = NotificationLevel


class NotificationTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a notification says. Each text may hold placeholders."""

    title: Annotated[str, Meta(min_length=1, max_length=300)]
    message: Annotated[str, Meta(max_length=10_000)] = ""
    level: NotificationLevel = NotificationLevel.INFO
    action_url: str = ""
    """A URL, or a path of the application's; empty: none."""


class RenderedNotification(NamedTuple):
    """What the user is shown."""

    title: str
    message: str
    level: NotificationLevel
    action_url: str | None


def _template(level: NotificationLevel, title: str, message: str) -> NotificationTemplate:
    return NotificationTemplate(level=level, title=title, message=message)


TEMPLATES: Mapping[str, NotificationTemplate] = {
    "device_online": _template(_SUCCESS, "{device} is online", "Your device {device} is connected again."),
    "device_offline": _template(_WARNING, "{device} is offline", "Your device {device} is no longer connected."),
    "device_risk_control": _template(
        _ERROR, "{device} is under risk control", "Your device {device} is restricted: {reason}"
    ),
    "device_banned": _template(_URGENT, "{device} is banned", "Your device {device} was banned: {reason}"),
    "device_reconnect": _template(
        _WARNING, "Reconnect {device}", "Your device {device} has to be connected again: {reason}"
    ),
    "risk_event": _template(_ERROR, "Risk event: {event}", "{details}"),
    "ai_processing": _template(_INFO, "AI processing: {state}", "{details}"),
    "message_status": _template(_INFO, "Message {status}", "Your message to {recipient} is {status}."),
    "human_takeover": _template(
        _URGENT, "A person should take over", "The conversation with {customer} needs a person: {reason}"
    ),
    "quota_80": _template(_WARNING, "80 % of your quota is used", "{used} of {limit} {quota} are used."),
    "quota_95": _template(_ERROR, "95 % of your quota is used", "{used} of {limit} {quota} are used."),
    "quota_100": _template(_URGENT, "Your quota is used up", "{used} of {limit} {quota} are used."),
    "cost_over_budget": _template(_ERROR, "Cost over budget", "You have spent {cost} of a budget of {budget}."),
    "usage_report": _template(_INFO, "Usage report, {period}", "{summary}"),
    "maintenance": _template(_WARNING, "Maintenance", "Maintenance begins at {begins} and ends at {ends}. {details}"),
    "new_feature": _template(_INFO, "New: {feature}", "{details}"),
    "security_alarm": _template(_URGENT, "Security alarm", "{details}"),
    "login_state": _template(_INFO, "Log-in: {state}", "{details}"),
    "right_changed": _template(_WARNING, "Your rights have changed", "{details}"),
    "chat_session_state": _template(_INFO, "Chat session {session}: {state}", "{details}"),
    "account_state": _template(_WARNING, "Account {account}: {state}", "{details}"),
}
"""Those that every server has. Settings may replace them, and add others."""


def placeholders(template: NotificationTemplate) -> set[str]:
    """The parameters that a template needs."""
    texts = (template.title, template.message, template.action_url)
    return {name for text in texts for name in _PLACEHOLDER.findall(text)}


def render(notification: Notification, templates: Mapping[str, NotificationTemplate]) -> RenderedNotification:
    """The texts of a notification. Its own texts take precedence over its template's. BadNotificationError if there is
    no such template, or a parameter is missing.
    """
    wanted = notification.template
    if wanted is None:
        level = notification.level or NotificationLevel.INFO
        return RenderedNotification(notification.title, notification.message, level, notification.action_url)
    template = templates.get(wanted)
    if template is None:
        raise BadNotificationError(f"there is no template {wanted!r}")
    if missing := sorted(placeholders(template) - notification.parameters.keys()):
        raise BadNotificationError(f"the template {wanted!r} needs the parameters {', '.join(missing)}")
    given = notification.parameters
    return RenderedNotification(
        notification.title or _filled(template.title, given),
        notification.message or _filled(template.message, given),
        notification.level or template.level,
        _action(notification, template, given),
    )


def _action(notification: Notification, template: NotificationTemplate, given: Mapping[str, object]) -> str | None:
    if notification.action_url is not None or not template.action_url:
        return notification.action_url
    try:
        return msgspec.convert(_filled(template.action_url, given), ActionUrl)
    except msgspec.ValidationError:
        raise BadNotificationError(f"the template {notification.template!r} makes no URL of its parameters") from None


def _filled(text: str, given: Mapping[str, object]) -> str:
    """The text; a parameter that is None is left out."""
    return _PLACEHOLDER.sub(lambda found: _shown(given[found[1]]), text).strip()


def _shown(value: object) -> str:
    return "" if value is None else str(value)
