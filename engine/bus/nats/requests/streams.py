"""The verbs of the bus that store messages in streams, and read them; see engine/bus/interface.py for the promises."""

from collections.abc import Sequence

import msgspec

from fanline.engine.bus.nats.jetstream import (
    EXPECTED_STREAM,
    api_reply,
    check_refusal,
    check_room,
    last_request,
    one_request,
    read_request,
    state_of,
)
from fanline.engine.bus.nats.requests.requests import Requests
from fanline.engine.bus.nats.signatures import Signatures
from fanline.engine.bus.stored import READ_BATCH, Page, StoreAck, Stored, StreamState
from fanline.protocol.channels import namespace_of
from fanline.protocol.nats.names import MESSAGE_ID, namespace_subject, stream_name
from fanline.protocol.nats.parser import NatsMessage
from fanline.protocol.nats.subjects import to_subject


class StreamRequests(Requests):
    """What is stored as `signed` is signed here, and what is read is checked."""

    def __init__(self) -> None:
        super().__init__()
        self.signatures = Signatures()

    async def store(
        self,
        channel: str,
        payload: bytes,
        store_id: str | None = None,
        last: int | None = None,
        *,
        signed: bool = False,
    ) -> StoreAck:
        if signed and self.signatures.needs_time:
            await self.stream_state(channel)
        await self.wait_room(len(payload))
        headers = {} if store_id is None else {MESSAGE_ID: store_id}
        if signed:
            headers = self.signatures.headers(channel, store_id or "", payload)
        return await self.write_stored(to_subject(channel), payload, headers, last)

    async def stream_state(self, channel: str) -> StreamState:
        (reply,) = await self.question(f"$JS.API.STREAM.INFO.{stream_name(namespace_of(channel))}", b"")
        info = api_reply(reply.payload)
        if "ts" in info:
            self.signatures.hear_time(info["ts"])
        return state_of(info)

    async def check_writable(self, namespace: str) -> None:
        (reply,) = await self.question(f"$JS.API.STREAM.INFO.{stream_name(namespace)}", b"")
        check_room(api_reply(reply.payload))
        # Only the stream's leader refuses this message, and only if it would take one without the condition.
        (reply,) = await self.request(to_subject(f"{namespace}:x"), b"", headers={EXPECTED_STREAM: "none"})
        check_refusal(reply.payload)

    async def last_offsets(self, channels: Sequence[str]) -> dict[str, int]:
        stream = stream_name(namespace_of(channels[0]))
        newest: dict[str, int] = {}
        more = 1
        while more:  # large messages do not fit into one answer
            rest = [channel for channel in channels if channel not in newest]
            messages, more = await self.read_stored(stream, last_request([to_subject(channel) for channel in rest]))
            newest |= {stored.channel: stored.position.offset for stored in self._page(messages, more).messages}
        return newest

    async def read(self, channel: str, start: int, most: int = READ_BATCH) -> Page:
        request = read_request(to_subject(channel), start, most)
        return self._page(*await self.read_stored(stream_name(namespace_of(channel)), request))

    async def read_one(self, channel: str, offset: int) -> Stored | None:
        stream = stream_name(namespace_of(channel))
        (reply,) = await self.question(f"$JS.API.DIRECT.GET.{stream}", one_request(offset))
        found = None if reply.status == 404 else self.signatures.stored_of(reply)
        return found if found is not None and found.channel == channel else None

    async def read_namespace(self, namespace: str, start: int) -> Page:
        page = self._page(
            *await self.read_stored(stream_name(namespace), read_request(namespace_subject(namespace), start))
        )
        if page.messages:
            # JetStream says for each message which one came before it in the page, whatever its channel; and of the
            # first one that none did, which would hide what its channel has from before the page.
            first = page.messages[0]
            position = msgspec.structs.replace(first.position, previous=start - 1)
            page.messages[0] = first._replace(position=position)
        return page

    def _page(self, messages: Sequence[NatsMessage], more: int) -> Page:
        return Page([self.signatures.stored_of(message) for message in messages], more)
