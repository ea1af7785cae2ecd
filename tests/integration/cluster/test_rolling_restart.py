"""Both servers are restarted one after the other while messages flow: nothing durable is lost or comes twice."""

import trio

from fanline.protocol.nats.subjects import to_subject
from tests.integration.cluster.servers import called, two_servers
from tests.integration.hooks.test_webhooks import SECRET, listening, subscribe
from tests.support.durable.resuming_client import ResumingClient, running_clients
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import wait_until

SECONDS = 170
CHANNEL = "project:rolling"
SETTINGS = """
[namespaces.project]
durable = true
[[webhooks]]
url = "http://127.0.0.1:{port}/events"
events = ["subscribed"]
secret = "{secret}"
"""


class Producer:
    """Stores numbers, one after the other."""

    def __init__(self) -> None:
        self.stored = 0

    async def run(self, url: str, ended: trio.Event) -> None:
        async with connect_nats(url) as nats:
            while not ended.is_set():
                reply = await nats.ask(to_subject(CHANNEL), b"%d" % self.stored)
                assert "error" not in reply
                self.stored += 1
                await trio.sleep(0.02)


async def test_a_rolling_restart_loses_and_repeats_no_message_and_no_webhook() -> None:
    producer, ended = Producer(), trio.Event()
    with trio.fail_after(SECONDS):
        async with listening() as (hears, port), two_servers(SETTINGS.format(port=port, secret=SECRET)) as pair:
            viewers = [ResumingClient(*serve.where, CHANNEL, {"o": 0}) for serve in pair.servers for _ in range(3)]
            channels = list[str]()
            async with running_clients(viewers):
                await wait_until(lambda: all(viewer.answers for viewer in viewers))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(producer.run, pair.nats.url, ended)
                    for number, serve in enumerate(pair.servers):
                        channels += [f"doc:{number}-{each}" for each in range(20)]
                        await subscribe(serve, *channels[-20:])
                        serve.child._process.terminate()
                        await serve.start_again()
                        while (await called(serve, "/stats"))["workers"]["answered"] < 4:
                            await trio.sleep(0.05)
                    ended.set()
                await wait_until(lambda: all(len(viewer.data) >= producer.stored for viewer in viewers), 60)
            for viewer in viewers:
                assert (viewer.faults, viewer.gaps, viewer.repeats) == ([], [], 0)
                assert viewer.data == list(range(producer.stored))
            await wait_until(lambda: set(channels) <= set(hears.channels()), 60)
            posted = [each["id"] for each in hears.taken if each["data"]["channel"] in channels]
            assert len(posted) == len(set(posted)) == len(channels)
