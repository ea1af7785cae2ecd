"""Keys of the management API. Of a key only a digest is stored: who reads the store cannot use it.

A key is `fl_ID_SECRET`. The secret has 256 random bits, so a plain SHA-256 of it is as good as a slow hash is for
passwords, and costs a microsecond.
"""

import hmac
import re
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fanline.protocol.text import NAME_PATTERN

PREFIX = "fl_"
ID_CHARACTERS = 12
SECRET_CHARACTERS = 43
_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{{ID_CHARACTERS}}})_([A-Za-z0-9_-]{{{SECRET_CHARACTERS}}})")
KeyName = Annotated[str, Meta(min_length=1, max_length=100, pattern=NAME_PATTERN)]


class ApiRight(StrEnum):
    """What the holder of a key may do. docs/reference/management-api.md has the same list; a test compares."""

    READ = "read"  # look at everything, messages included
    METRICS = "metrics"  # read `/metrics`, and nothing else
    PUBLISH = "publish"  # send messages to channels, users and connections
    TASKS = "tasks"  # cancel tasks, and answer their questions
    CONNECTIONS = "connections"  # ping, subscribe, unsubscribe and close connections
    PREFERENCES = "preferences"  # see and set where users are notified
    REVOKE = "revoke"  # take tokens back
    ADMIN = "admin"  # everything, keys included


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of a key, as JSON. Times are Unix seconds."""

    name: KeyName
    rights: tuple[ApiRight, ...]
    digest: str
    """SHA-256 of the secret, in hexadecimal."""
    created: float
    expires: float | None = None

    def accepts(self, secret: str, now: float) -> bool:
        """Whether this is the secret of the key, and the key has not expired."""
        return hmac.compare_digest(self.digest, digest_of(secret)) and (self.expires is None or now < self.expires)

    def may(self, right: ApiRight) -> bool:
        """Whether a right is among those of the key, or part of one."""
        return may(frozenset(self.rights), right)


class ShownKey(NamedTuple):
    """What a caller presents."""

    id: str
    secret: str


def may(rights: frozenset[ApiRight], right: ApiRight) -> bool:
    """Whether a right is among those that are held, or part of one."""
    return right in rights or ApiRight.ADMIN in rights or (right is ApiRight.METRICS and ApiRight.READ in rights)


def digest_of(secret: str) -> str:
    """What is stored of a secret."""
    return sha256(secret.encode()).hexdigest()


def key_text(key_id: str, secret: str) -> str:
    """The key, as its holder has it."""
    return f"{PREFIX}{key_id}_{secret}"


def read_key(text: str) -> ShownKey | None:
    """The inverse of `key_text`; None for a text that is not a key."""
    found = _KEY.fullmatch(text)
    return None if found is None else ShownKey(found[1], found[2])
