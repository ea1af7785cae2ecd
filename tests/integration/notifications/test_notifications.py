"""Notifications of a real server, by WebSocket, by e-mail to a real SMTP server, and to a real HTTP service."""

from typing import Any

import trio

from tests.integration.notifications.receivers import notifying
from tests.support.raw_client import RawClient, connect
from tests.support.servers.serve import wait_until


async def test_an_urgent_one_goes_by_websocket_by_email_and_by_push() -> None:  # S4-45, S4-51, S4-56, S4-91
    with trio.fail_after(90):
        async with notifying() as all_of:
            await all_of.api("POST", "/users/anna/preferences", {"email": "anna@example.com", "push": "anna-phone"})
            asked = {"user": "anna", "title": "Fire", "message": "in Köln", "level": "URGENT", "action_url": "/fires/1"}
            notification = (await all_of.api("POST", "/notify", asked))["id"]
            await wait_until(lambda: bool(all_of.mail.taken and all_of.service.taken))
            (mail,), ((path, body),) = all_of.mail.taken, all_of.service.taken
            assert (mail.to, mail.subject, mail.text.strip()) == (("anna@example.com",), "Fire", "in Köln")
            assert (path, body["title"], body["message"], body["type"]) == ("/anna-phone", "Fire", "in Köln", "failure")
            async with connect("127.0.0.1", all_of.serve.port) as client:
                await client.say({"v": 1, "t": "sub", "i": "1", "c": "user:anna"})
                while (message := await client.json()).get("e") != "notification":
                    pass
            assert message["i"] == message["d"]["id"] == notification
            shown = {key: message["d"][key] for key in ("title", "message", "type", "action_url", "auto_close")}
            assert shown == {
                "title": "Fire",
                "message": "in Köln",
                "type": "urgent",
                "action_url": "/fires/1",
                "auto_close": False,
            }
            assert "hidden-password" not in all_of.serve.stderr_text()


async def test_a_line_break_in_a_title_begins_no_header_of_the_mail() -> None:
    with trio.fail_after(90):
        async with notifying() as all_of:
            await all_of.api("POST", "/users/anna/preferences", {"email": "anna@example.com"})
            await all_of.api(
                "POST", "/notify", {"user": "anna", "title": "Fire\r\nBcc: eve@example.com", "level": "error"}
            )
            await wait_until(lambda: bool(all_of.mail.taken))
            (mail,) = all_of.mail.taken
            assert (mail.to, mail.subject) == (("anna@example.com",), "Fire Bcc: eve@example.com")


async def test_a_title_of_any_length_and_script_reaches_the_mailbox() -> None:
    titles = ["漢" * 300, "x" * 300]
    with trio.fail_after(90):
        async with notifying() as all_of:
            await all_of.api("POST", "/users/anna/preferences", {"email": "anna@example.com"})
            for title in titles:
                await all_of.api("POST", "/notify", {"user": "anna", "title": title, "level": "error", "message": "M"})
            await wait_until(lambda: len(all_of.mail.taken) == 2)
            long, short = sorted(all_of.mail.taken, key=lambda mail: mail.subject, reverse=True)
            assert long.subject == "漢" * 100 + "..."
            assert long.text.split() == [titles[0], "M"]
            assert (short.subject, short.text.strip()) == (titles[1], "M")


async def test_an_address_that_would_be_read_as_that_of_somebody_else_gets_nothing_and_is_told() -> None:
    with trio.fail_after(90):
        async with notifying() as all_of:
            await all_of.api("POST", "/users/anna/preferences", {"email": "o'brien@example.com"})
            await all_of.api("POST", "/notify", {"user": "anna", "title": "Fire", "level": "error"})
            while not (found := (await all_of.api("GET", "/notifications/dead"))["items"]):
                await trio.sleep(0.05)
            assert found[0]["reason"] == (
                "the e-mail address of the user anna has characters at which Apprise divides addresses"
            )
            assert all_of.mail.taken == []


async def test_clients_of_both_dialects_list_them_and_one_that_reads_tells_the_others() -> None:  # S4-50
    with trio.fail_after(90):
        async with notifying() as all_of:
            for number in range(3):
                await all_of.api("POST", "/notify", {"user": "anna", "title": f"T{number}", "id": f"n-{number}"})
            host, port = "127.0.0.1", all_of.serve.port
            async with connect(host, port) as one, connect(host, port, subprotocol=None) as other:
                await other.say({"type": "connect", "user_id": "anna"})
                await one.say({"v": 1, "t": "sub", "i": "1", "c": "user:anna", "d": {"last": 0}})
                while (listed := await _call(one, "notifications"))["unread"] != 3:
                    await trio.sleep(0.05)
                assert [each["id"] for each in listed["notifications"]] == ["n-2", "n-1", "n-0"]
                assert await _call(one, "mark_read", {"ids": ["n-1"]}) == {"unread": 2}
                told = await _plain(other, "notification_read")
                assert told["data"] == {"ids": ["n-1"], "all": False, "unread": 2}

                await other.say({"type": "get_notifications", "limit": 2})
                page = await _plain(other, "notifications")
                assert [(each["id"], each["read"]) for each in page["notifications"]] == [("n-2", False), ("n-1", True)]
                assert (page["unread"], page["next"]) == (2, "n-1")
                await other.say({"type": "message_read", "message_id": "n-0"})
                assert (await _plain(other, "notification_read"))["data"]["unread"] == 1
                await other.say({"type": "mark_read"})
                assert (await _plain(other, "mark_read_result"))["unread"] == 0
                assert (await _call(one, "notifications", {"unread": True}))["notifications"] == []
                refused = await _ask(one, "mark_read", {"ids": [7]})
                assert refused["d"]["code"] == "bad_message"
            assert (await all_of.api("GET", "/users/anna/notifications"))["unread"] == 0


async def _ask(client: RawClient, verb: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    await client.say({"v": 1, "t": "call", "i": verb, "c": "user:anna", "e": verb, "d": data or {}})
    while (answer := await client.json()).get("i") != verb:
        pass
    return answer


async def _call(client: RawClient, verb: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await _ask(client, verb, data)
    assert answer["t"] == "ok", answer
    found: dict[str, Any] = answer["d"]
    return found


async def _plain(client: RawClient, kind: str) -> dict[str, Any]:
    while (said := await client.json())["type"] != kind:
        pass
    return said
