"""Servers that want tokens, and tokens for them."""

import time
from typing import Any

from fanline.engine.access.access import Access
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.settings import AccessSettings, AuthMode, TokenSettings
from fanline.engine.access.tokens.verifier import TokenVerifier
from fanline.protocol.auth.tokens import secret_key, sign

SECRET = "a secret that is long enough for SHA-256"


def token(user: str | None = "anna", ends_in: float = 60.0, secret: str = SECRET, **claims: Any) -> str:
    """A token that ends in this many seconds."""
    named = {} if user is None else {"sub": user}
    return sign({**named, "exp": time.time() + ends_in, **claims}, secret.encode())


def token_access(
    access: AccessSettings | None = None,
    mode: AuthMode = AuthMode.TOKEN,
    handlers: HandlerClient | None = None,
    **tokens: Any,
) -> Access:
    """Access by tokens that are signed with SECRET."""
    settings = TokenSettings(secret=SECRET, **tokens)
    return Access(mode, settings, access, TokenVerifier(settings, [secret_key(SECRET)]), handlers)
