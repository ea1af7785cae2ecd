"""The verbs of the bus for buckets, which are streams to JetStream; see engine/bus/interface.py for the promises."""

import math
from collections.abc import Sequence
from contextlib import suppress

from fanline.engine.bus.errors import BusError
from fanline.engine.bus.nats.jetstream import entry_of, get_request, last_request, read_request, subject_of
from fanline.engine.bus.nats.requests.requests import Requests
from fanline.engine.bus.stored import KvEntry
from fanline.protocol.nats.names import Bucket, bucket_stream, bucket_subject, key_of


class BucketRequests(Requests):
    """A key is a subject of the bucket's stream, its revision a sequence number."""

    async def kv_get(self, bucket: Bucket, key: str) -> KvEntry | None:
        (reply,) = await self.question(f"$JS.API.DIRECT.GET.{bucket_stream(bucket)}", get_request(bucket, key))
        return None if reply.status == 404 else entry_of(reply)

    async def kv_get_many(self, bucket: Bucket, keys: Sequence[str]) -> dict[str, KvEntry]:
        entries: dict[str, KvEntry] = {}
        more = 1
        while more:  # large values do not fit into one answer
            rest = [bucket_subject(bucket, key) for key in keys if key not in entries]
            messages, more = await self.read_stored(bucket_stream(bucket), last_request(rest))
            entries |= {key_of(bucket, subject_of(message)): entry_of(message) for message in messages}
        return entries

    async def kv_update(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        return (await self.write_stored(bucket_subject(bucket, key), value, {}, revision)).offset

    def kv_put_soon(self, bucket: Bucket, key: str, value: bytes) -> None:
        with suppress(BusError):
            self.send(bucket_subject(bucket, key), value)

    async def kv_put(self, bucket: Bucket, key: str, value: bytes, seconds: float, revision: int | None = None) -> int:
        headers = {"Nats-TTL": f"{math.ceil(seconds)}s"}
        return (await self.write_stored(bucket_subject(bucket, key), value, headers, revision)).offset

    async def kv_entries(self, bucket: Bucket, prefix: str = "", after: int = 0) -> dict[str, KvEntry]:
        found: dict[str, KvEntry] = {}
        more, every = 1, bucket_subject(bucket, f"{prefix}.>" if prefix else ">")
        while more:
            messages, more = await self.read_stored(bucket_stream(bucket), read_request(every, after + 1))
            for message in messages:
                entry = found[key_of(bucket, subject_of(message))] = entry_of(message)
                after = entry.revision
        return {key: entry for key, entry in found.items() if entry.value}

    async def kv_page(self, bucket: Bucket, after: int, most: int) -> dict[str, KvEntry]:
        messages, _ = await self.read_stored(
            bucket_stream(bucket), read_request(bucket_subject(bucket, ">"), after + 1, most)
        )
        return {key_of(bucket, subject_of(message)): entry_of(message) for message in messages}
