"""The engine's signature on stored messages: NATS knows who may publish on a subject, but not what a payload says.

A signed message carries the header SIGNATURE: when it was signed, in Unix milliseconds of the store, and an HMAC-SHA256
of that time, the channel, the store id and the payload. The key is in a bucket that no producer can read; the first
worker of a cluster creates it. A copy of a signed message is not accepted:

| where the copy is stored                | why it is refused                                                          |
|-----------------------------------------|----------------------------------------------------------------------------|
| in another channel                      | the channel is part of what is signed                                      |
| in the same one, without its store id   | so is the store id                                                         |
| in the same one, within two minutes     | JetStream stores each store id once                                        |
| in the same one, later                  | it was not signed when it was stored                                       |

What was stored before the key was created is accepted unsigned: an earlier version of the engine stored it.
"""

import hmac
import secrets
from contextlib import suppress

import trio
from msgspec.structs import replace

from fanline.engine.bus.errors import BusError, ConflictError
from fanline.engine.bus.interface import Bus
from fanline.engine.bus.nats.jetstream import position_of, subject_of
from fanline.engine.bus.stored import Stored, StreamPosition
from fanline.engine.clock import unix_ms, unix_ms_of
from fanline.protocol.nats.names import MESSAGE_ID, SIGNATURE, SIGNING_KEY, Bucket
from fanline.protocol.nats.parser import NatsMessage, header_of
from fanline.protocol.nats.subjects import channel_of

FRESH_SECONDS = 30.0
"""How far the times of signing and storing may be apart: twice this is less than JetStream's de-duplication window."""
SYNC_SECONDS = 1.0
"""The store's clock is asked for this often, while messages are signed: it may be set while it runs."""
_TRIES = 50  # looks for the key: in a cluster, a replica may lag behind
_TRY_SECONDS = 0.1
_ID = b"\r\n%s:" % MESSAGE_ID.encode()
_MARK = b"\r\n%s:" % SIGNATURE.encode()


class Signatures:
    """`prepare` it before the first message is signed or read, and whenever the store may have been lost."""

    def __init__(self, key: bytes = b"") -> None:
        self._key = key
        self._since = ""
        """When the key was stored, RFC 3339. Without the Z, which sorts behind digits: nats-server leaves out the last
        zeros of a fraction.
        """
        self._ahead = 0.0  # milliseconds between Trio's clock and the store's
        self._synced: float | None = None

    async def prepare(self, bus: Bus) -> None:
        """Read the key, or create it. A worker that still has a key which the store has lost stores it again: otherwise
        the next worker to start would create another one, and neither would believe the other. BusError.
        """
        for _ in range(_TRIES):
            found = await bus.kv_get(Bucket.KEYS, SIGNING_KEY)
            if found is not None and found.value:
                self._key, self._since = found.value, found.time.removesuffix("Z")
                return
            if found is not None and self._key:
                return  # an operator has deleted it, and is to restart all workers: they shall not bring it back
            with suppress(ConflictError):  # another worker was faster
                revision, key = 0 if found is None else found.revision, self._key or secrets.token_hex(32).encode()
                await bus.kv_update(Bucket.KEYS, SIGNING_KEY, key, revision)
            await trio.sleep(_TRY_SECONDS)
        raise BusError(f"the bucket {Bucket.KEYS} does not return the key that was stored there")

    # --- the clock of the store ---------------------------------------------------------------------------------------

    @property
    def needs_time(self) -> bool:
        """Whether the store has to be asked for its time before a message is signed."""
        return self._synced is None or trio.current_time() > self._synced + SYNC_SECONDS

    def hear_time(self, timestamp: str) -> None:
        """The store's clock shows this, RFC 3339."""
        self._synced = trio.current_time()
        self._ahead = unix_ms_of(timestamp) - self._synced * 1000

    # --- signing ------------------------------------------------------------------------------------------------------

    def headers(self, channel: str, store_id: str, payload: bytes) -> dict[str, str]:
        """The headers of a signed message. Its store id becomes one that cannot be guessed: a message that was stored
        under it before would keep this one out.
        """
        own_id = f"{store_id}/{self._mac(store_id.encode())[:22]}"
        now = unix_ms() if self._synced is None else round(trio.current_time() * 1000 + self._ahead)
        return {MESSAGE_ID: own_id, SIGNATURE: f"{now} {self._sign(now, channel, own_id.encode(), payload)}"}

    def _sign(self, now: int, channel: str, store_id: bytes, payload: bytes) -> str:
        return self._mac(b"%d %s %d %s " % (now, channel.encode(), len(store_id), store_id), payload)

    def _mac(self, *parts: bytes) -> str:
        return hmac.new(self._key, b"".join(parts), "sha256").hexdigest()

    # --- checking -----------------------------------------------------------------------------------------------------

    def position_of(self, channel: str, message: NatsMessage) -> StreamPosition:
        """The position of a message that a stream has republished, or that was read from it; on the hot path."""
        position = position_of(message.headers)
        if position.time < self._since or (_MARK in message.headers and self._is_signed(channel, message, position)):
            return replace(position, signed=True)
        return position

    def stored_of(self, message: NatsMessage) -> Stored:
        """One message read from a stream."""
        channel = channel_of(subject_of(message))
        return Stored(channel, message.payload, self.position_of(channel, message))

    def _is_signed(self, channel: str, message: NatsMessage, position: StreamPosition) -> bool:
        store_id = _store_id(message.headers)
        at, _, signature = (header_of(message.headers, SIGNATURE) or "").partition(" ")
        if not (self._key and store_id and at.isdecimal() and at.isascii() and len(at) < 16):
            return False
        if abs(int(at) - unix_ms_of(position.time)) > FRESH_SECONDS * 1000:
            return False
        return hmac.compare_digest(signature.encode(), self._sign(int(at), channel, store_id, message.payload).encode())


def _store_id(headers: bytes) -> bytes:
    """The store id by which JetStream has compared the message: it takes the first such header, with all that follows
    the blanks. b"" if there could be a doubt.
    """
    if headers.count(MESSAGE_ID.encode()) != 1:
        return b""
    _, _, rest = headers.partition(_ID)
    return rest.partition(b"\r\n")[0].lstrip(b" ")
