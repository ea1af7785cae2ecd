"""Programs that notify, each in its own way of running: what their users then have."""

import os
import signal
import textwrap
from functools import partial
from typing import Any

import trio

from tests.integration.notifications.receivers import Notified, notifying
from tests.support.nats.server import running_nats
from tests.support.servers.serve import wait_until
from tests.support.tasks.stored import in_thread, run_script

PLAIN = """
import fanline
fanline.notify("plain", "Title", "Text", level="warning", data={"a": 1}).wait(20)
"""
ASYNCIO = """
import asyncio, fanline

async def main():
    await fanline.notify("asyncio", "Title", action_url="https://example.com/x", auto_close=2.5)

asyncio.run(main())
"""
TRIO = """
import fanline, trio

async def main():
    await fanline.notify("trio", template="quota_95", parameters={"used": 95, "limit": 100, "quota": "calls"})

trio.run(main)
"""
FORGETTING = """
import fanline
for _ in range(3):
    fanline.notify("forgetting", "Title", key="once")
"""
REFUSED = """
import fanline
endless = {}
endless["self"] = endless
for wrong in (
    {"level": "loud"}, {"channels": ["fax"]}, {"title": ""}, {"action_url": "javascript:x"}, {"data": endless}
):
    try:
        fanline.notify(**{"user": "anna", "title": "T", **wrong})
    except fanline.NotPublished:
        continue
    raise AssertionError(wrong)
"""
COMPAT = """
import asyncio
from fanline.compat import *

async def main():
    assert await send_notification("1", "Hello", "there", channels=["WEBSOCKET"])
    assert await send_urgent_notification("1", "Fire", "now")
    assert await send_device_status_notification("1", "Phone 2", "banned", "spam")
    assert await send_cost_warning_notification("1", 120, 100, "EUR")

asyncio.run(main())
assert send_notification("1", "Plain", "code", "success").wait(20)
"""


async def run(all_of: Notified, *programs: str) -> None:
    for program in programs:
        ended = await in_thread(partial(run_script, textwrap.dedent(program), **all_of.serve.environ))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


async def received(all_of: Notified, user: str, count: int = 1) -> list[dict[str, Any]]:
    """What a user was notified of, oldest first, once that is so much."""
    while len(found := (await all_of.api("GET", f"/users/{user}/notifications"))["items"]) < count:
        await trio.sleep(0.05)
    return list(reversed(found))


async def test_programs_of_all_kinds_notify_and_old_ones_under_the_old_names() -> None:  # S4-52, S4-53, S4-54, S4-55
    with trio.fail_after(120):
        async with notifying() as all_of:
            await run(all_of, PLAIN, ASYNCIO, TRIO, FORGETTING, REFUSED, COMPAT)
            (plain,) = await received(all_of, "plain")
            assert (plain["title"], plain["message"], plain["type"]) == ("Title", "Text", "warning")
            assert plain["data"] == {"a": 1}
            (one,) = await received(all_of, "asyncio")
            assert (one["action_url"], one["auto_close"], one["type"]) == ("https://example.com/x", 2.5, "info")
            (quota,) = await received(all_of, "trio")
            assert (quota["title"], quota["message"]) == ("95 % of your quota is used", "95 of 100 calls are used.")
            assert [each["title"] for each in await received(all_of, "forgetting")] == ["Title"]
            old = await received(all_of, "1", 5)
            assert sorted((each["title"], each["type"]) for each in old) == [
                ("Cost over budget", "error"),
                ("Fire", "urgent"),
                ("Hello", "info"),
                ("Phone 2 is banned", "urgent"),
                ("Plain", "success"),
            ]


async def test_a_program_hears_that_nobody_takes_notifications() -> None:
    program = """
    import fanline
    try:
        fanline.notify("anna", "T").wait(20)
    except fanline.NotPublished as error:
        print(error)
    """
    with trio.fail_after(60):
        async with running_nats() as nats:
            ended = await in_thread(partial(run_script, textwrap.dedent(program), FANLINE_NATS=nats.url))
    assert "no Fanline server of this version uses that NATS" in ended.stdout, ended.stderr


async def test_what_is_asked_for_while_no_control_process_runs_is_sent_later() -> None:
    with trio.fail_after(90):
        async with notifying() as all_of:
            pid = all_of.control_pid()
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            await run(all_of, PLAIN)
            os.kill(pid, signal.SIGCONT)
            await wait_until(lambda: all_of.control_pid() is not None)
            assert len(await received(all_of, "plain")) == 1
