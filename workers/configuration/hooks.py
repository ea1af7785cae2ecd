"""The settings of hooks: the functions of the table `[hooks]`, and the tables `[[webhooks]]`."""

from collections.abc import Mapping

from fanline.engine.hooks.settings import HookSettings, Webhook
from fanline.protocol.handlers import HandlerForm, HandlerNameError, parse_handler
from fanline.protocol.hooks.events import EventNameError, check_event_name
from fanline.protocol.hooks.signing import BadSecretError, key_of
from fanline.workers.configuration.access import check_handler, is_safe_url
from fanline.workers.configuration.wording import read_value
from fanline.workers.errors import SettingsError

_REQUIRED = ("url", "events", "secret")


def check_hooks(hooks: HookSettings) -> None:
    """Raises SettingsError, naming the setting, for anything that names no function, responder or event."""
    for text in hooks.handlers:
        try:
            is_function = parse_handler(text).form is HandlerForm.FUNCTION
        except HandlerNameError:
            is_function = False
        if not is_function:
            raise SettingsError(f"hooks.handlers: {text!r} names no function: write module:function")
    if hooks.responder:
        check_handler("hooks.responder", hooks.responder)
        if parse_handler(hooks.responder).form is not HandlerForm.SUBJECT:
            raise SettingsError("hooks.responder: expected nats:SUBJECT; functions stand in hooks.handlers")
    for name in hooks.events:
        _check_event(name, "hooks.events")


def read_webhooks(tables: object, source: str) -> tuple[Webhook, ...]:
    """Raises SettingsError naming the table and the key at fault."""
    if not isinstance(tables, list):
        raise SettingsError(f"bad value for webhooks in {source}: expected tables, [[webhooks]]")
    found = [_webhook(table, f"[[webhooks]] number {number} in {source}") for number, table in enumerate(tables, 1)]
    if len({webhook.url for webhook in found}) < len(found):
        raise SettingsError(f"[[webhooks]] in {source}: two of them have the same url; list all events in one")
    return tuple(found)


def _webhook(table: object, where: str) -> Webhook:
    if not isinstance(table, Mapping):
        raise SettingsError(f"bad value for {where}: expected a table")
    if missing := [key for key in _REQUIRED if key not in table]:
        raise SettingsError(f"{where} needs {missing[0]}")
    if "secret" in table:
        _check_secret(table["secret"], where)
    webhook = Webhook(**{key: read_value(Webhook, key, value, where) for key, value in table.items()})
    if not _is_webhook(webhook.url):
        raise SettingsError(f"{where}: url: expected an https:// URL, or an http:// one on loopback")
    for name in webhook.events:
        _check_event(name, f"{where}: events")
    return webhook


def _is_webhook(url: str) -> bool:
    try:
        return parse_handler(url).form is HandlerForm.WEBHOOK and is_safe_url(url)
    except HandlerNameError:
        return False


def _check_secret(secret: object, where: str) -> None:
    """No message quotes the secret."""
    try:
        key_of(str(secret))
    except BadSecretError as error:
        raise SettingsError(f"{where}: secret: {error}; `openssl rand -base64 32` draws some") from None


def _check_event(name: str, where: str) -> None:
    try:
        check_event_name(name)
    except EventNameError as error:
        raise SettingsError(f"{where}: {error}") from None
