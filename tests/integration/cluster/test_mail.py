"""Notifications are sent by the control processes of both servers: those that are killed lose and repeat none."""

import json
from collections import Counter

import trio

from fanline.protocol.nats.names import NOTIFY_SUBJECT
from tests.integration.cluster.servers import called, process_of, two_servers
from tests.integration.notifications.mail_server import mail_server
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import kill, wait_until

SECONDS = 300
SETTINGS = """
[notifications]
email = ["mailto://robot:hidden-password@127.0.0.1:{smtp}?from=robot@example.com&mode=insecure&to={{email}}&format=text"]
per_hour = 0
"""
COUNT = 200
UNDER_WAY = 4
"""E-mails that a server has under way at a time: what the receiver may have taken when the process is killed."""


async def test_of_two_hundred_mails_none_is_lost_and_only_what_was_under_way_comes_twice() -> None:
    titles = [f"n-{number}" for number in range(COUNT)]
    with trio.fail_after(SECONDS), mail_server() as (mail, smtp):
        settings = SETTINGS.format(smtp=smtp)
        async with two_servers(settings) as pair, connect_nats(pair.nats.url) as client:
            await called(pair.servers[0], "/users/anna/preferences", {"email": "anna@example.com"})
            for title in titles:
                asked = {"user": "anna", "title": title, "channels": ["email"], "id": title}
                assert (await client.ask(NOTIFY_SUBJECT, json.dumps(asked).encode()))["stream"]
            kills = 0
            for number, serve in enumerate((*pair.servers, pair.servers[0])):
                await wait_until(lambda number=number: len(mail.taken) >= 20 + 50 * number, 60)  # type: ignore[misc]
                while (control := process_of(serve, "control")) is None:
                    await trio.sleep(0.05)
                await kill(control)
                kills += 1
            await wait_until(lambda: len({each.subject for each in mail.taken}) == COUNT, 120)
            found = Counter(each.subject for each in mail.taken)
            assert set(found) == set(titles)
            twice = {title for title, count in found.items() if count > 1}
            assert len(mail.taken) - COUNT == len(twice) <= kills * UNDER_WAY
            assert (await called(pair.servers[0], "/notifications/dead"))["items"] == []
