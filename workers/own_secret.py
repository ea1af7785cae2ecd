"""The secret of a server that was given none: drawn once, and kept in the data directory for its owner alone."""

import os
import secrets
from pathlib import Path

import msgspec

from fanline.engine.access.settings import AuthMode
from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import ServeError
from fanline.workers.state_file import write_private

FILE_NAME = "tokens.secret"


def with_secret(settings: Settings) -> Settings:
    """The settings, with the server's own secret if tokens are required and there is nothing to verify them with.

    Raises ServeError if it cannot be kept.
    """
    if settings.auth is not AuthMode.TOKEN or settings.tokens.given:
        return settings
    tokens = msgspec.structs.replace(settings.tokens, secret=_own_secret(Path(settings.data_dir)))
    return msgspec.structs.replace(settings, tokens=tokens)


def _own_secret(data_dir: Path) -> str:
    path = data_dir / FILE_NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(48).encode())
        with os.fdopen(os.open(path, os.O_RDONLY)) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"cannot keep the secret for tokens in {path}: {error}") from None
