"""The calls of the sales assistant's notification service."""

from collections.abc import Mapping, Sequence
from typing import Any

from fanline.compat.sent import Sent
from fanline.errors import NotPublished
from fanline.publishing.notify import notify

_DEVICE_TEMPLATES = {
    "online": "device_online",
    "offline": "device_offline",
    "risk_control": "device_risk_control",
    "banned": "device_banned",
    "reconnect": "device_reconnect",
}


def send_notification(
    user_id: str | int,
    title: str,
    message: str,
    level: str = "info",
    channels: Sequence[str] | None = None,
    action_url: str | None = None,
    auto_close: bool | float = False,
    data: Mapping[str, Any] | None = None,
) -> Sent:
    """By the channels of its level, or those named: WEBSOCKET, EMAIL, SMS, PUSH. Raises NotPublished for what can never
    be sent.
    """
    return Sent([notify(str(user_id), title, message, level, channels, action_url, auto_close=auto_close, data=data)])


def send_urgent_notification(
    user_id: str | int,
    title: str,
    message: str,
    action_url: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Sent:
    """By WebSocket, e-mail, SMS and push, also in quiet hours."""
    return send_notification(user_id, title, message, "urgent", action_url=action_url, data=data)


def send_device_status_notification(
    user_id: str | int, device_name: str, status: str, reason: str = "", data: Mapping[str, Any] | None = None
) -> Sent:
    """The state of a device: `online`, `offline`, `risk_control` or `banned`, or `reconnect`: it should be connected
    again.
    """
    template = _DEVICE_TEMPLATES.get(status.lower())
    if template is None:
        raise NotPublished(f"status: expected {', '.join(_DEVICE_TEMPLATES)}, not {status!r}")
    given = {"device": device_name, "reason": reason}
    return Sent([notify(str(user_id), template=template, parameters=given, data=data)])


def send_cost_warning_notification(
    user_id: str | int, current_cost: float, budget: float, currency: str = "", data: Mapping[str, Any] | None = None
) -> Sent:
    """The costs are over the budget."""
    given = {"cost": f"{current_cost:g} {currency}".strip(), "budget": f"{budget:g} {currency}".strip()}
    return Sent([notify(str(user_id), template="cost_over_budget", parameters=given, data=data)])
