"""`fanline.notify`: notifications from any Python program, carried by the thread that `fanline.publish` uses."""

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fanline.base.plain import plain
from fanline.errors import NotPublished
from fanline.protocol.nats.names import NOTIFY_SUBJECT, producer_store_id
from fanline.protocol.nats.options import NatsOptions
from fanline.protocol.notifications.notification import BadNotificationError, Notification, encode_notification
from fanline.publishing.lane import OutgoingMessage
from fanline.publishing.publish import hand_over
from fanline.publishing.receipt import Receipt


def notify(
    user: str,
    title: str = "",
    message: str = "",
    level: str | None = None,
    channels: Sequence[str] | None = None,
    action_url: str | None = None,
    *,
    auto_close: bool | float = False,
    data: Mapping[str, Any] | None = None,
    template: str | None = None,
    parameters: Mapping[str, str | int | float | bool | None] | None = None,
    key: str | None = None,
    id: str | None = None,  # noqa: A002  # the field's own name
    nats: str | NatsOptions | None = None,
) -> Receipt:
    """Notify a user (`*`: all users; `@NAME`: a group of the settings), from asyncio, Trio or plain code.

    Returns at once, as `fanline.publish` does: the receipt tells when the notification is stored. The server then sends
    it by WebSocket, e-mail, SMS and push, as far as `channels`, the user's preferences and the settings say.

    `level` is `info`, `success`, `warning`, `error` or `urgent`; None: that of the template, or `info`. `action_url` is
    where a click leads to. `auto_close`: whether it disappears by itself, or after how many seconds. `template` and
    `parameters` make the texts that are not given. With the same `key`, a user gets the same template (or title) only
    once in a while; requests with the same `id` are one.

    Raises NotPublished for what can never be sent: an unknown level, neither a text nor a template.
    """
    name = id or secrets.token_urlsafe(12)
    asked: dict[str, Any] = {
        "level": level,
        "channels": None if channels is None else tuple(channels),
        "action_url": action_url,
        "auto_close": auto_close,
        "template": template,
        "key": key,
    }
    try:
        fields = {"data": plain(dict(data or {})), "parameters": plain(dict(parameters or {}))}
        payload = encode_notification(Notification(user=user, title=title, message=message, id=name, **asked, **fields))
    except (TypeError, ValueError, RecursionError, BadNotificationError) as error:
        raise NotPublished(f"the notification cannot be sent: {error}") from None
    outgoing = OutgoingMessage(
        NOTIFY_SUBJECT, NOTIFY_SUBJECT, payload, producer_store_id(user, name), time.monotonic(), must_be_stored=True
    )
    return hand_over(outgoing, name, nats)
