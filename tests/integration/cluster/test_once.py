"""In a cluster each event is handled once, posted once and notified once, also while control processes are killed."""

from collections import Counter
from contextlib import AsyncExitStack

import trio

from tests.integration.cluster.servers import called, process_of, two_servers
from tests.integration.hooks.test_webhooks import SECRET, listening
from tests.integration.notifications.mail_server import mail_server
from tests.support.raw_client import connect
from tests.support.servers.serve import kill, wait_until
from tests.support.tasks.on_worker import connect_to

SECONDS = 170
APP = """
from fanline.hooks import Hooks, ServerEvent

def setup(hooks: Hooks) -> None:
    async def heard(event: ServerEvent) -> None:
        hooks.publish("log:all", {"channel": event.data["channel"]}, event="heard")

    hooks.on("subscribed", heard)
"""
SETTINGS = """
[[webhooks]]
url = "http://127.0.0.1:{http}/events"
events = ["subscribed"]
secret = "{secret}"
[hooks]
handlers = ["app:setup"]
[notifications]
email = ["mailto://robot:hidden-password@127.0.0.1:{smtp}?from=robot@example.com&mode=insecure&to={{email}}&format=text"]
per_hour = 0
"""
EACH = 10
"""Channels that are subscribed to on each worker, and notifications that each server is asked for."""


async def test_hooks_webhooks_and_notifications_happen_once_while_both_control_processes_are_killed() -> None:
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(SECONDS))
        hears, http = await stack.enter_async_context(listening())
        mail, smtp = stack.enter_context(mail_server())
        settings = SETTINGS.format(http=http, smtp=smtp, secret=SECRET)
        pair = await stack.enter_async_context(two_servers(settings, APP))
        log = await stack.enter_async_context(connect(*pair.servers[0].where))
        assert (await log.ask({"t": "sub", "c": "log:all", "i": "1"}))["t"] == "ok"
        await called(pair.servers[0], "/users/anna/preferences", {"email": "anna@example.com"})
        wanted, titles = set[str](), set[str]()
        for serve in pair.servers:
            for pid in serve.worker_pids():
                async with connect_to(serve, pid) as client:
                    for number in range(EACH):
                        channel = f"doc:{pid}-{number}"
                        wanted.add(channel)
                        assert (await client.ask({"t": "sub", "c": channel, "i": "1"}))["t"] == "ok"
            for number in range(EACH):
                title = f"{serve.port}-{number}"
                titles.add(title)
                asked = {"user": "anna", "title": title, "channels": ["email"], "id": title}
                await called(serve, "/notify", asked)
            control = process_of(serve, "control")
            assert control is not None
            await kill(control)
        heard = Counter[str]()
        while set(heard) != wanted:
            message = await log.json()
            if message.get("e") == "heard" and message["d"]["channel"] in wanted:
                heard[message["d"]["channel"]] += 1
        assert set(heard.values()) == {1}
        await wait_until(lambda: wanted <= set(hears.channels()), 60)
        posted = Counter(event["id"] for event in hears.taken)
        assert set(posted.values()) == {1}
        await wait_until(lambda: {each.subject for each in mail.taken} == titles, 90)
        # Of what was under way when a process was killed, the mail server may have taken one for each channel's place.
        assert len(mail.taken) <= len(titles) + 2 * 4
