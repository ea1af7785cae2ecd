"""The settings of authentication: roles, and the rules between mode, tokens and rights."""

from urllib.parse import urlsplit

import msgspec

from fanline.engine.access.rules import AccessRules
from fanline.engine.access.settings import AccessSettings, TokenSettings
from fanline.protocol.auth.claims import MIN_SECRET_BYTES
from fanline.protocol.auth.rights import GrantError, GrantText
from fanline.protocol.handlers import HandlerForm, HandlerNameError, parse_handler
from fanline.protocol.websocket.origins import is_loopback_host
from fanline.workers.errors import SettingsError


def read_roles(table: object, source: str) -> dict[str, tuple[str, ...]]:
    """Role -> its grants, from the table `[access.roles]`. Raises SettingsError."""
    try:
        return msgspec.convert(table, dict[str, tuple[GrantText, ...]])
    except msgspec.ValidationError:
        text = f'bad value for access.roles in {source}: expected a table with lines like editor = ["doc:*:sub+pub"]'
        raise SettingsError(text) from None


def check_access(tokens: TokenSettings, access: AccessSettings) -> None:
    """Raises SettingsError for unusable rights, an unusable secret or URL, naming the setting."""
    groups = {"everyone": access.everyone, "anonymous": access.anonymous}
    for name, grants in {**groups, **{f"roles.{role}": grants for role, grants in access.roles.items()}}.items():
        try:
            AccessRules(AccessSettings(everyone=grants))
        except GrantError as error:
            raise SettingsError(f"access.{name}: {error}") from None
    check_handler("access.authenticator", access.authenticator)
    check_handler("access.room_authorizer", access.room_authorizer)
    if tokens.secret and len(tokens.secret.encode()) < MIN_SECRET_BYTES:
        raise SettingsError(f"tokens.secret needs at least {MIN_SECRET_BYTES} bytes, drawn at random")
    if tokens.jwks_url and not is_safe_url(tokens.jwks_url):
        raise SettingsError("tokens.jwks_url: expected an https:// URL, or an http:// one on loopback")


def check_handler(key: str, text: str) -> None:
    """Raises SettingsError, naming the setting, for a text that is neither empty nor a handler that may be asked."""
    if not text:
        return
    try:
        handler = parse_handler(text)
    except HandlerNameError as error:
        raise SettingsError(f"{key}: {error}") from None
    if handler.form is HandlerForm.WEBHOOK and not is_safe_url(text):
        raise SettingsError(f"{key}: expected an https:// URL, or an http:// one on loopback")


def is_safe_url(url: str) -> bool:
    """An attacker who can change a key set, or a webhook's answer, in transit can forge identities."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(host)))
