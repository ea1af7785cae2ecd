"""Who may connect to a worker, according to the settings. PyJWT and httpx are loaded only where they are needed."""

from pathlib import Path

from fanline.engine.access.access import Access, Verifier
from fanline.engine.access.application.handlers import HandlerClient
from fanline.engine.access.settings import TokenSettings
from fanline.engine.bus.interface import Bus
from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import ServeError


def make_access(settings: Settings, bus: Bus) -> Access:
    """Raises ServeError if a key cannot be used."""
    handlers = HandlerClient(bus, settings.handlers)
    return Access(settings.auth, settings.tokens, settings.access, make_verifier(settings.tokens), handlers)


def make_verifier(tokens: TokenSettings) -> Verifier | None:
    """None if there is nothing to verify a token with. Raises ServeError if a key cannot be used."""
    if not tokens.given:
        return None
    from fanline.engine.access.tokens.verifier import TokenVerifier
    from fanline.protocol.auth.tokens import UnusableKeyError, secret_key

    try:
        keys = [secret_key(tokens.secret)] if tokens.secret else []
    except UnusableKeyError as error:
        raise ServeError(f"tokens.secret: {error}") from None
    if tokens.public_key:
        from fanline.protocol.auth.public_keys import pem_key

        try:
            keys.append(pem_key(Path(tokens.public_key).read_bytes()))
        except OSError as error:
            raise ServeError(f"tokens.public_key: cannot read {tokens.public_key}: {error.strerror}") from None
        except UnusableKeyError as error:
            raise ServeError(f"tokens.public_key: {tokens.public_key}: {error}") from None
    if not tokens.jwks_url:
        return TokenVerifier(tokens, keys)
    from fanline.engine.access.tokens.key_set import KeySet

    return TokenVerifier(tokens, keys, KeySet(tokens.jwks_url))
