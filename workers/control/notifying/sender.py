"""Sends dispatches by Apprise, in threads, because it blocks.

Apprise takes some 45 MB, so it is imported when something is to be sent for the first time.
"""

import importlib
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import trio

from fanline.protocol.notifications.dispatches import Dispatch, url_name
from fanline.protocol.notifications.notification import NotificationChannel, NotificationLevel
from fanline.protocol.notifications.policy import ADDRESSES, PLACEHOLDERS, filled_url, misread_address
from fanline.workers.configuration.notifications import NotificationSettings
from fanline.workers.control.notifying.dead import MAX_REASON

AT_ONCE = 4
"""Dispatches of a channel under way at a time: a service that hangs delays no other channel."""
DEADLINE_SECONDS = 90.0
"""For one attempt; longer than what Apprise itself waits for."""
_CONNECT_SECONDS, _READ_SECONDS = 15.0, 60.0  # a receiver that is only slow must not get it twice
_SAMPLE = dict.fromkeys(PLACEHOLDERS, "sample") | {"email": "sample@example.com", "phone": "+15550001000"}
_NAMES = {"user": "user name", "email": "e-mail address of the user"}
_MOST_SUBJECT = 300
"""Bytes. Apprise writes three for each in one line, and SMTP servers take lines of 998 (RFC 5321, 4.5.3.1.6)."""
_TYPES = {
    NotificationLevel.INFO: "info",
    NotificationLevel.SUCCESS: "success",
    NotificationLevel.WARNING: "warning",
    NotificationLevel.ERROR: "failure",
    NotificationLevel.URGENT: "failure",
}
_SMTP_REPLY = re.compile(r"\((\d{3}), b(['\"])(.*?)\2[,)]")
_NEVER = "55"
"""How replies begin by which an SMTP server refuses an address or a message for good (RFC 5321, 4.2.3)."""
_log = logging.getLogger("fanline.notifications")


class NotDeliveredError(Exception):
    """A dispatch was not taken; str() says why, without secrets. `final`: another attempt would end the same."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Sender:
    """Of one server."""

    def __init__(self, settings: NotificationSettings) -> None:
        self._urls = {channel: settings.urls(channel) for channel in NotificationChannel}
        self._threads = {channel: trio.CapacityLimiter(AT_ONCE) for channel in NotificationChannel}

    async def check(self) -> None:
        """Log which URLs of the settings Apprise does not understand."""
        for channel, urls in self._urls.items():
            for number, url in enumerate(urls, 1):
                try:
                    await trio.to_thread.run_sync(_plugin, filled_url(url, _SAMPLE) or "", abandon_on_cancel=True)
                except NotDeliveredError as error:
                    _log.error("notifications.%s number %d: %s", channel, number, error)

    async def send(self, dispatch: Dispatch, known: Mapping[str, str]) -> None:
        """Returns when it was taken. NotDeliveredError. `known`: what the placeholders of its URL stand for."""
        template = _named(self._urls[dispatch.channel], dispatch.url)
        if template is None:
            raise NotDeliveredError("its URL is no longer in the settings", final=True)
        url = filled_url(template, known)
        if url is None:
            reason = f"{dispatch.user} no longer has the {ADDRESSES[dispatch.channel]} that it was meant for"
            raise NotDeliveredError(reason, final=True)
        if (name := misread_address(template, known)) is not None:
            reason = f"the {_NAMES[name]} {dispatch.user} has characters at which Apprise divides addresses"
            raise NotDeliveredError(reason, final=True)
        limiter = self._threads[dispatch.channel]
        with trio.move_on_after(DEADLINE_SECONDS):
            # A thread that is left alone keeps its place until it ends.
            await trio.to_thread.run_sync(_notify, url, dispatch, limiter=limiter, abandon_on_cancel=True)
            return
        raise NotDeliveredError(f"it was not taken within {DEADLINE_SECONDS:g} s")


def _named(urls: Sequence[str], name: str) -> str | None:
    return next((url for url in urls if url_name(url) == name), None)


# --- in a thread --------------------------------------------------------------------------------------------------


class _Complaint(NamedTuple):
    """Why something was not taken."""

    text: str
    """One line, without URLs, which may hold secrets."""
    final: bool


class _Reasons(logging.Handler):
    """What Apprise last complained about, by thread: its answer is only that something failed.

    What an SMTP server has said it logs for debugging alone, among texts that may hold secrets; so only a reply in the
    form of smtplib's errors is taken from there.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._found = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._found.text = text
        elif (reply := _SMTP_REPLY.search(text)) is not None:
            self._found.reply = f"{reply[1]} {reply[3]}"

    def forget(self) -> None:
        self._found.text = self._found.reply = ""

    def take(self) -> _Complaint:
        text, reply = self._found.text or "the service did not take it", self._found.reply
        said = f"{text.rstrip('.')}: {reply}" if reply else text
        line = " ".join(word for word in said.split() if "://" not in word)[:MAX_REASON]
        return _Complaint(line, reply.startswith(_NEVER))


_reasons = _Reasons()
_importing = threading.Lock()


def _apprise() -> Any:
    with _importing:
        try:
            apprise = importlib.import_module("apprise")
        except ImportError:
            raise NotDeliveredError("Apprise is not installed: pip install 'fanline[server]'") from None
        logger = logging.getLogger("apprise")
        if _reasons not in logger.handlers:
            logger.addHandler(_reasons)
            logger.setLevel(logging.DEBUG)
            logger.propagate = False
        return apprise


def _plugin(url: str) -> Any:
    """What Apprise makes of a URL. NotDeliveredError."""
    plugin = _apprise().Apprise.instantiate(url, suppress_exceptions=True)
    if plugin is None:
        raise NotDeliveredError("Apprise does not understand the URL", final=True)
    if "rto=" not in url:
        plugin.socket_read_timeout = _READ_SECONDS
    if "cto=" not in url:  # of SMTP, the timeout for everything
        plugin.socket_connect_timeout = _READ_SECONDS if _is_mail(url) else _CONNECT_SECONDS
    return plugin


def _is_mail(url: str) -> bool:
    return "mail" in url.partition("://")[0]


def _notify(url: str, dispatch: Dispatch) -> None:
    plugin = _plugin(url)
    _reasons.forget()
    title = _subject(dispatch.title) if _is_mail(url) else dispatch.title
    whole = dispatch.title if title != dispatch.title or not dispatch.message else ""
    link = dispatch.action_url if dispatch.action_url and "://" in dispatch.action_url else ""
    body = "\n\n".join(part for part in (whole, dispatch.message, link) if part)
    try:
        taken = plugin.notify(body=body, title=title, notify_type=_TYPES[dispatch.level], body_format="text")
    except Exception as error:  # noqa: BLE001  # a plugin's, of which there are more than a hundred
        raise NotDeliveredError(f"the service failed with {type(error).__name__}") from None
    if not taken:
        complaint = _reasons.take()
        raise NotDeliveredError(complaint.text, final=complaint.final)


def _subject(title: str) -> str:
    """The title, or its beginning."""
    encoded = title.encode()
    return title if len(encoded) <= _MOST_SUBJECT else f"{encoded[:_MOST_SUBJECT].decode(errors='ignore')}..."
