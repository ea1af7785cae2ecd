"""How far a user's inbox is acknowledged, as the store says it."""

from base64 import b64decode

import msgspec
import trio

from fanline.protocol.nats.names import Bucket, channel_key
from tests.support.nats.client import NatsClient

_PAUSE_SECONDS = 0.02


async def until_acknowledged(store: NatsClient, inbox: str, offset: int) -> None:
    """Wait until a channel like `user:anna` is acknowledged up to an offset. `store`: with the engine's login."""
    while await _cursor(store, inbox) < offset:
        await trio.sleep(_PAUSE_SECONDS)


async def _cursor(store: NatsClient, inbox: str) -> int:
    request = msgspec.json.encode({"last_by_subj": f"$KV.{Bucket.CURSORS}.{channel_key(inbox)}"})
    found = await store.ask(f"$JS.API.STREAM.MSG.GET.KV_{Bucket.CURSORS}", request)
    return 0 if "error" in found else int(b64decode(found["message"]["data"]).split()[0])
