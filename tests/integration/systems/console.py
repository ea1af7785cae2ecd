"""The stage of the agent console's story: its server, its backend, and clients that are not ours."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import trio

from fanline.protocol.envelope import Envelope, encode_json
from fanline.protocol.nats.subjects import to_subject
from tests.engine.access.clients import SECRET
from tests.support.foreign.client import Foreign, Retry, Seen
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.servers.serve import Serve, running_serve
from tests.support.tasks.on_worker import worker_at
from tests.support.tasks.producer import NatsProducer

COMES_BACK = Retry((1, 2, 4, 8, 16), final=(1000,)).faster(20)
"""As its class does: after any code but 1000."""
ENVIRON = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass
class Console:
    serve: Serve
    backend: NatsClient
    """With the login of producers."""
    store: NatsClient
    """With that of the engine."""
    producer: NatsProducer
    """Of the task 42: it answers calls."""

    async def emit(self, channel: str, event: str, data: Mapping[str, Any], **extra: Any) -> int:
        """Publish an event, with what else is to stand at its top level; its offset."""
        payload = encode_json(Envelope(event=event, data=dict(data), extra=extra or None))
        stored: int = (await self.backend.ask(to_subject(channel), payload))["seq"]
        return stored

    async def come(
        self,
        client: Foreign,
        query: Mapping[str, str],
        says: Sequence[Mapping[str, Any]] = (),
        other_than: int | None = None,
    ) -> int | None:
        """Connect, and hear the greeting; the worker that it is on, which is not `other_than`."""
        while True:
            await client.open(self.url(**query), says=says, retry=COMES_BACK)
            await saw(client, "open")
            assert (await hear(client, "connection_established"))["connection_id"]
            worker = worker_at(self.serve, client.process.pid)
            if worker != other_than:
                return worker
            await client.close()
            while (await client.seen())["saw"] != "close":
                pass

    def url(self, **query: str) -> str:
        return f"{self.serve.url}?{urlencode(query)}"


@asynccontextmanager
async def console() -> AsyncIterator[Console]:
    async with running_serve(2, env=ENVIRON) as serve, trio.open_nursery() as nursery:
        producer = NatsProducer(serve, "task:42")
        await nursery.start(producer.run)
        async with connect_nats(serve.producer_url) as backend, connect_nats(serve.engine_url) as store:
            yield Console(serve, backend, store, producer)
        nursery.cancel_scope.cancel()


async def saw(client: Foreign, *kinds: str) -> Seen:
    """The next reports, but for pings, are of these kinds; the last of them."""
    for kind in kinds:
        while (report := await client.seen()).get("text", "").startswith('{"type":"ping"'):
            pass
        assert report["saw"] == kind, report
    return report


async def hear(client: Foreign, kind: str) -> dict[str, Any]:
    """The next message, which has this type and the time; what follows on a change of state is passed over."""
    message = await client.message()
    while message["type"] == "task_status_change" != kind:
        message = await client.message()
    assert message["type"] == kind, message
    assert _TIME.fullmatch(message["timestamp"]), message
    return message


async def hears_nothing_more(*clients: Foreign) -> None:
    """All that has been sent is heard."""
    for client in clients:
        await client.send({"type": "ping"})
        await hear(client, "pong")


async def leave(*clients: Foreign) -> None:
    for client in clients:
        await client.close()
        assert (await saw(client, "close"))["code"] == 1000
