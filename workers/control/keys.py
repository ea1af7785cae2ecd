"""The keys of the management API, in the bucket API_KEYS: the same for all servers of a cluster."""

import secrets
import time
from collections.abc import Sequence

import msgspec

from fanline.engine.bus.interface import Bus, ConflictError
from fanline.engine.stored_entry import read_entry
from fanline.protocol.auth.api_keys import ID_CHARACTERS, ApiKey, ApiRight, ShownKey, digest_of, key_text
from fanline.protocol.nats.names import Bucket


class ApiKeys:
    """All methods raise BusError. A key is read each time it is shown, so that one that was revoked is of no use."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def find(self, shown: ShownKey) -> ApiKey | None:
        """The key; None if there is none with this id and secret, or it has expired."""
        entry = await self._bus.kv_get(Bucket.API_KEYS, shown.id)
        if entry is None or not entry.value:
            return None
        key = read_entry(ApiKey, entry.value, f"the API key {shown.id}")
        return key if key is not None and key.accepts(shown.secret, time.time()) else None

    async def create(self, name: str, rights: Sequence[ApiRight], expires: float | None) -> tuple[str, str, ApiKey]:
        """Id, text and stored form of a new key; the text is kept nowhere. `expires`: Unix seconds."""
        secret = secrets.token_urlsafe(32)
        key = ApiKey(name=name, rights=tuple(rights), digest=digest_of(secret), created=time.time(), expires=expires)
        while True:
            key_id = secrets.token_hex(ID_CHARACTERS // 2)
            try:
                await self._bus.kv_update(Bucket.API_KEYS, key_id, msgspec.json.encode(key), 0)
            except ConflictError:
                continue
            return key_id, key_text(key_id, secret), key

    async def all(self) -> dict[str, ApiKey]:
        """Id -> key, in the order in which they were made."""
        entries = await self._bus.kv_entries(Bucket.API_KEYS)
        read = {each: read_entry(ApiKey, entry.value, f"the API key {each}") for each, entry in entries.items()}
        known = {each: key for each, key in read.items() if key is not None}
        return dict(sorted(known.items(), key=lambda item: item[1].created))

    async def revoke(self, key_id: str) -> bool:
        """Forget a key; False if there is none."""
        entry = await self._bus.kv_get(Bucket.API_KEYS, key_id)
        if entry is None or not entry.value:
            return False
        await self._bus.kv_update(Bucket.API_KEYS, key_id, b"", entry.revision)
        return True
