"""Which worker monitors a task: the one that holds the lease of the task's share."""

import base64

import msgspec
import trio

from fanline.engine.cluster.shares import SHARES
from fanline.protocol.nats.names import Bucket, bucket_stream, bucket_subject
from tests.support.nats.client import NatsClient, connect_nats
from tests.support.servers.serve import Serve

HOLDER_SECONDS = 15.0


async def wait_for_holder(serve: Serve, share: int) -> int | None:
    """Process id of the worker that holds the share, once a live one does; None if none does for a long time."""
    async with connect_nats(serve.engine_url) as nats:
        with trio.move_on_after(HOLDER_SECONDS):
            while (pid := await _lease_holder(nats, share)) not in serve.worker_pids():
                await trio.sleep(0.1)
            return pid
    return None


async def unattended(serve: Serve) -> list[str]:
    """A sentence about the shares that no live worker takes, though all have had the time for it."""
    left: set[int] = set(range(SHARES))
    async with connect_nats(serve.engine_url) as nats:
        with trio.move_on_after(HOLDER_SECONDS):
            while left:
                left = {share for share in left if await _lease_holder(nats, share) not in serve.worker_pids()}
                await trio.sleep(0.1)
            return []
    return [f"{HOLDER_SECONDS:g} s later no live worker holds {len(left)} of the {SHARES} shares of the tasks"]


async def wait_for_balance(nats: NatsClient, serve: Serve) -> None:
    """Until all shares are held by live workers, and each of them holds some. TooSlowError."""
    with trio.fail_after(HOLDER_SECONDS):
        while {await _lease_holder(nats, share) for share in range(SHARES)} != set(serve.worker_pids()):
            await trio.sleep(0.1)


async def _lease_holder(nats: NatsClient, share: int) -> int:
    """What the lease says; 0 if nobody has it."""
    request = msgspec.json.encode({"last_by_subj": bucket_subject(Bucket.LEASES, f"tasks.{share}")})
    reply = await nats.ask(f"$JS.API.STREAM.MSG.GET.{bucket_stream(Bucket.LEASES)}", request)
    if "error" in reply:
        return 0
    worker: str = msgspec.json.decode(base64.b64decode(reply["message"]["data"]))["worker"]
    return int(worker.partition("-")[0] or 0)
