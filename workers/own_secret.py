"""The secret of a server without a configured one: drawn once, and kept in the data directory, for its owner only."""

import os
import secrets
import stat
from pathlib import Path

import msgspec

from fanline.engine.access.settings import AuthMode
from fanline.workers.configuration.settings import Settings
from fanline.workers.errors import ServeError
from fanline.workers.state_file import write_private

FILE_NAME = "tokens.secret"
_MAX_CHARACTERS = 4096


def with_secret(settings: Settings) -> Settings:
    """The settings, with the server's own secret if tokens are required and there is neither anything to verify them
    with nor an authenticator, which may know tokens of another kind.

    Raises ServeError if it cannot be kept.
    """
    if settings.auth is not AuthMode.TOKEN or settings.tokens.given or settings.access.authenticator:
        return settings
    tokens = msgspec.structs.replace(settings.tokens, secret=_own_secret(Path(settings.data_dir)))
    return msgspec.structs.replace(settings, tokens=tokens)


def _own_secret(data_dir: Path) -> str:
    path = data_dir / FILE_NAME
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_private(path, secrets.token_urlsafe(48).encode())
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as file:
            check_private(os.fstat(file.fileno()))
            secret = file.read(_MAX_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"cannot keep the secret for tokens in {path}: {error}") from None
    if not secret:
        raise ServeError(f"the secret for tokens in {path} is empty; delete the file, and another one is drawn")
    return secret


def check_private(found: os.stat_result) -> None:
    """OSError unless only this user can have written or read the file: anyone with the secret can sign any token."""
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no file")
    if found.st_uid != os.geteuid():
        raise OSError("it belongs to another user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise OSError("other users may read or write it; make a new one, or `chmod 600` if nobody has read it")
