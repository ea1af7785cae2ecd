"""What workers report to each other about presence: who has joined a channel of one worker, and who has left.

Every delta of a channel names the one before it, so that a watcher knows whether it has missed one. The values are
absolute, so applying a delta twice does no harm. A delta whose `previous` is 0 begins from nothing: it is a snapshot.
"""

from hashlib import blake2s

import msgspec

DIGEST_BYTES = 8
"""Of a user's name: two of a million users share a digest once in 37 million cases."""


class PresenceDelta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One worker's changes on one channel; on the bus as JSON. Unknown keys are ignored."""

    worker: str
    """Its member id, which lasts as long as the process."""
    number: int
    """Grows with each delta of the worker, whatever its channel."""
    previous: int = 0
    """Number of the delta before it on this channel; 0: what follows is all there is."""
    connections: int = 0
    """Of all users and of clients without a user name, after the changes."""
    anonymous: int = 0
    """Those among them without a user name."""
    users: dict[str, tuple[int, str | None]] = {}
    """User -> (connections, how the user is shown): who has joined or changed. A user who may be back soon has 0."""
    gone: tuple[str, ...] = ()
    large: bool = False
    """The channel has too many users here for their names to be of use: digests take their place."""
    came_digests: bytes = b""
    gone_digests: bytes = b""


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(PresenceDelta)


def decode(payload: bytes) -> PresenceDelta | None:
    """A delta as it came over the bus; None for one that cannot be read, as of a later version."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def digest(user: str) -> bytes:
    """What replaces a user's name where names are not needed."""
    return blake2s(user.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def split_digests(joined: bytes) -> list[bytes]:
    """The digests that were joined."""
    return [joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)]
