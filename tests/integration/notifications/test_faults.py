"""Receivers that refuse, are slow or die, and a control process that is killed: none is lost, and none sent twice."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable

import trio

from fanline.protocol.nats.names import DEAD_NOTIFICATIONS, NOTIFY_SUBJECT
from tests.integration.notifications.mail_server import Mail
from tests.integration.notifications.receivers import Notified, notifying
from tests.support.nats.client import connect_nats
from tests.support.servers.serve import kill, wait_until

COUNT, USERS = 1000, 10
UNDER_WAY = 4
"""Dispatches of one channel that a server has under way at a time."""


async def ask(all_of: Notified, titles: Iterable[str], **fields: object) -> None:
    """Ask for notifications as any program can, and wait until they are stored."""
    async with connect_nats(all_of.serve.producer_url) as client:
        for number, title in enumerate(titles):
            asked = {"user": f"user-{number % USERS}", "title": title, "id": title} | fields
            assert (await client.ask(NOTIFY_SUBJECT, json.dumps(asked).encode()))["stream"]


async def dead(all_of: Notified) -> list[dict[str, object]]:
    found: list[dict[str, object]] = (await all_of.api("GET", "/notifications/dead"))["items"]
    return found


async def set_addresses(all_of: Notified, users: int = USERS) -> None:
    for number in range(users):
        addresses = {"email": f"user-{number}@example.com", "push": f"phone-{number}"}
        await all_of.api("POST", f"/users/user-{number}/preferences", addresses)


async def test_a_control_process_killed_among_a_thousand_loses_none_and_repeats_only_what_was_under_way() -> None:
    titles = [f"n-{number}" for number in range(COUNT)]
    with trio.fail_after(300):
        async with notifying() as all_of, trio.open_nursery() as nursery:
            await set_addresses(all_of)
            channels = ["websocket", "push"]
            nursery.start_soon(lambda: ask(all_of, titles, channels=channels))
            for taken in (COUNT // 10, COUNT // 2):
                await wait_until(lambda taken=taken: len(all_of.service.taken) >= taken, 120)  # type: ignore[misc]
                pid = all_of.control_pid()
                assert pid is not None
                await kill(pid)
                await wait_until(lambda pid=pid: all_of.control_pid() not in (None, pid), 60)  # type: ignore[misc]
            await wait_until(lambda: len(set(all_of.service.titles())) == COUNT, 120)
            twice = {title for title, count in Counter(all_of.service.titles()).items() if count > 1}
            assert len(all_of.service.taken) - COUNT == len(twice) <= 2 * UNDER_WAY
            for number in range(USERS):
                page = await all_of.api("GET", f"/users/user-{number}/notifications?limit=500")
                found = [each["id"] for each in page["items"]]
                assert sorted(found) == sorted(titles[number::USERS])
            assert await dead(all_of) == []


async def test_a_receiver_that_refuses_or_dies_gets_each_one_once_later() -> None:
    refusals = iter([500, None, 429] * 4)
    titles = [f"n-{number}" for number in range(20)]
    with trio.fail_after(120):
        async with notifying() as all_of:
            await set_addresses(all_of)
            all_of.service.answer = lambda title: next(refusals, 200)
            failing = {"n-3", "n-7"}

            def once_refused(mail: Mail) -> str:
                if mail.subject in failing:
                    failing.discard(mail.subject)
                    return "451 try later"
                return "250 OK"

            all_of.mail.answer = once_refused
            await ask(all_of, titles, channels=["email", "push"])
            await wait_until(lambda: len(all_of.service.taken) >= 20 and len(all_of.mail.taken) >= 20, 90)
            assert (
                sorted(all_of.service.titles()) == sorted(mail.subject for mail in all_of.mail.taken) == sorted(titles)
            )
            assert await dead(all_of) == []


async def test_a_receiver_that_is_slow_gets_each_one_once() -> None:
    with trio.fail_after(120):
        async with notifying() as all_of:
            await set_addresses(all_of)
            all_of.service.seconds = 12  # longer than an item may be silent
            await ask(all_of, ["slow-1", "slow-2"], channels=["push"])
            await wait_until(lambda: len(all_of.service.taken) >= 2, 60)
            all_of.service.seconds = 0
            await ask(all_of, ["last"], channels=["push"])
            await wait_until(lambda: "last" in all_of.service.titles())
            assert sorted(all_of.service.titles()) == ["last", "slow-1", "slow-2"]


async def test_what_nobody_takes_is_given_up_and_can_be_tried_again() -> None:
    with trio.fail_after(120):
        async with notifying(give_up=1) as all_of:
            await set_addresses(all_of)
            all_of.service.answer = lambda title: 500 if title == "bad" else 200
            await ask(all_of, ["good", "bad"], channels=["push"], user="user-1")
            while not (found := await dead(all_of)):
                await trio.sleep(0.1)
            assert all_of.service.titles() == ["good"]
            (item,) = found
            assert (item["user_id"], item["id"], item["channel"], item["title"]) == ("user-1", "bad", "push", "bad")
            assert item["attempts"] == 3
            assert "500" in str(item["reason"])
            all_of.service.answer = lambda title: 200
            await all_of.api("POST", f"/notifications/dead/{item['number']}/retry")
            await wait_until(lambda: all_of.service.titles() == ["good", "bad"])
            assert await dead(all_of) == []


async def test_what_can_never_be_sent_is_kept_with_the_reason() -> None:
    with trio.fail_after(90):
        async with notifying() as all_of:
            await ask(all_of, ["a"], template="no-such-one")
            await ask(all_of, ["b"], channels=["sms"])
            await ask(all_of, ["c"], channels=["email"])
            async with connect_nats(all_of.serve.producer_url) as client:
                await client.ask(NOTIFY_SUBJECT, b"no JSON")
            while len(found := await dead(all_of)) < 4:
                await trio.sleep(0.1)
            reasons = sorted(str(each["reason"]) for each in found)
            assert reasons[1:] == [
                "there is no URL in notifications.sms",
                "there is no template 'no-such-one'",
                "user-0 has no e-mail address",
            ]
            assert "JSON" in reasons[0]


async def test_large_ones_that_were_given_up_are_listed_page_by_page_to_the_last() -> None:
    with trio.fail_after(90):
        async with notifying() as all_of:
            titles = [f"n-{number}" for number in range(40)]
            await ask(all_of, titles, template="no-such-one", data={"report": "x" * 60_000})
            async with connect_nats(all_of.serve.engine_url) as client:
                while (await client.api("STREAM.INFO", {}, DEAD_NOTIFICATIONS))["state"]["messages"] < len(titles):
                    await trio.sleep(0.05)
            pages = list[list[str]]()
            after: str | None = "0"
            while after is not None:
                page = await all_of.api("GET", f"/notifications/dead?limit=100&after={after}")
                pages.append([item["id"] for item in page["items"]])
                after = page["next"]
            assert len(pages) > 1
            assert sorted(itertools.chain(*pages)) == sorted(titles)
