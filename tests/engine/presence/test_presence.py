"""Presence as clients see it, on one worker and over two."""

from typing import Any

import pytest
import trio

from tests.engine.access.clients import token
from tests.engine.presence.users import (
    names,
    notice,
    presence,
    running_cluster,
    subscribe,
    user_client,
    wait_names,
)
from tests.support.raw_client import RawClient

V1, PLAIN = "fanline.v1.json", None


async def test_a_query_names_the_users_of_all_workers_each_once_with_its_connections() -> None:
    with trio.fail_after(20):
        async with (
            running_cluster() as [one, other],
            user_client(one, "ann") as ann,
            user_client(other, "ann") as again,
            user_client(other, "bob") as bob,
            user_client(other, None) as anonymous,
        ):
            for client in (ann, again, bob, anonymous):
                await subscribe(client)
            users = [
                {"user_id": "ann", "username": "ANN", "connections": 2},
                {"user_id": "bob", "username": "BOB", "connections": 1},
            ]
            expected = {"count": 2, "connections": 4, "anonymous": 1, "users": users}
            while await presence(ann) != expected:  # the workers have just started, and do not know each other yet
                await trio.sleep(0.05)
            assert await presence(bob) == {**expected, "users": users}
            assert await presence(bob, "room:empty") == {"count": 0, "connections": 0, "users": []}


async def test_a_viewer_is_told_who_joins_and_leaves_on_any_worker() -> None:
    with trio.fail_after(20):
        async with (
            running_cluster() as [one, other],
            user_client(one, "ann") as ann,
            user_client(one, "bob") as bob,
            user_client(other, "cid") as cid,
        ):
            await subscribe(ann, presence=True)
            assert await notice(ann) == ("join", "ann")
            await subscribe(bob)
            assert await notice(ann) == ("join", "bob")
            await subscribe(cid, presence=True)
            assert await notice(ann) == ("join", "cid")
            await bob.ask({"t": "unsub", "c": "room:1", "i": "2"})
            assert await notice(ann) == ("leave", "bob")
            assert [await notice(cid), await notice(cid)] == [("join", "cid"), ("leave", "bob")]


async def test_a_notice_has_the_user_as_the_token_says_an_id_and_a_time() -> None:
    with trio.fail_after(10):
        async with running_cluster(1) as [engine], user_client(engine, "ann") as ann:
            await subscribe(ann, presence=True)
            told = await ann.json()
            assert isinstance(told.pop("i"), str)
            assert told.pop("ts") > 1_700_000_000_000
            expected = {"user_id": "ann", "username": "ANN"}
            assert told == {"v": 1, "t": "join", "c": "room:1", "u": "ann", "d": expected}


async def test_a_second_connection_of_a_user_is_no_news_nor_is_its_end() -> None:
    with trio.fail_after(20):
        async with running_cluster() as [one, other], user_client(one, "ann") as ann, user_client(one, "bob") as bob:
            await subscribe(ann, presence=True)
            assert await notice(ann) == ("join", "ann")
            await subscribe(bob)
            async with user_client(other, "bob") as again:
                await subscribe(again)
                await bob.ask({"t": "unsub", "c": "room:1", "i": "2"})
                await wait_names(ann, ["ann", "bob"])
                await again.ask({"t": "unsub", "c": "room:1", "i": "2"})
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.3):
                told = [await notice(ann) for _ in range(3)]
                pytest.fail(f"{told}")


async def test_a_lost_connection_that_is_back_soon_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.engine.presence.attendance.LINGER_SECONDS", 1.0)
    with trio.fail_after(20):
        async with running_cluster() as [one, other], user_client(one, "ann") as ann:
            await subscribe(ann, presence=True)
            assert await notice(ann) == ("join", "ann")
            async with user_client(one, "bob") as bob:
                await subscribe(bob)
            assert await notice(ann) == ("join", "bob")
            async with user_client(other, "bob") as bob:
                await subscribe(bob)
                await trio.sleep(1.2)  # nothing comes while it lasts, and then nothing has come
                assert await names(ann) == ["ann", "bob"]
            assert await notice(ann) == ("leave", "bob")


async def test_a_lost_connection_that_does_not_come_back_is_a_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanline.engine.presence.attendance.LINGER_SECONDS", 0.3)
    with trio.fail_after(20):
        async with running_cluster(1) as [engine], user_client(engine, "ann") as ann:
            await subscribe(ann, presence=True)
            async with user_client(engine, "bob") as bob:
                await subscribe(bob)
                assert [await notice(ann), await notice(ann)] == [("join", "ann"), ("join", "bob")]
            lost = trio.current_time()
            await wait_names(ann, ["ann"])
            assert trio.current_time() - lost >= 0.25


async def ask(client: RawClient, **command: Any) -> dict[str, Any]:
    return await client.ask({"i": "x", **command})


async def test_presence_needs_the_right_and_a_namespace_that_has_it() -> None:
    with trio.fail_after(10):
        async with (
            running_cluster(1) as [engine],
            user_client(engine, "ann") as ann,
            user_client(engine, "bob", channels={"*": ["sub"]}) as bob,
        ):
            for command in ({"t": "presence"}, {"t": "sub", "d": {"presence": True}}):
                refused = await ask(bob, c="room:1", **command)
                assert refused["d"] == {
                    "code": "permission_denied",
                    "message": "you have no right to presence on room:1",
                }
                refused = await ask(ann, c="dull:1", **command)
                assert refused["d"] == {
                    "code": "not_supported",
                    "message": "dull:1 has no presence",
                }
            await subscribe(bob)
            await wait_names(ann, ["bob"])


async def test_a_viewer_can_look_away_and_again_and_a_plain_sub_changes_nothing() -> None:
    with trio.fail_after(20):
        async with running_cluster(1) as [engine], user_client(engine, "ann") as ann:
            await subscribe(ann, presence=True)
            assert await notice(ann) == ("join", "ann")
            await subscribe(ann)
            async with user_client(engine, "bob") as bob:
                await subscribe(bob)
                assert await notice(ann) == ("join", "bob")
                await subscribe(ann, presence=False)
                await bob.ask({"t": "unsub", "c": "room:1", "i": "2"})
                await wait_names(ann, ["ann"])
                await subscribe(ann, presence=True)
                await subscribe(bob)
                assert await notice(ann) == ("join", "bob")


async def test_of_a_large_channel_viewers_get_counts_and_the_list_once_it_is_small_again() -> None:
    with trio.fail_after(30):
        async with running_cluster(presence_users=2) as [one, other], user_client(one, "ann") as ann:
            await subscribe(ann, presence=True)
            assert await notice(ann) == ("join", "ann")
            async with user_client(other, "bob") as bob, user_client(other, "cid") as cid:
                await subscribe(bob)
                assert await notice(ann) == ("join", "bob")
                await subscribe(cid)
                told = await ann.json()
                assert (told["t"], told["c"], told["d"]) == ("presence", "room:1", {"count": 3, "connections": 3})
                assert await presence(ann) == {"count": 3, "connections": 3}
                await bob.ask({"t": "unsub", "c": "room:1", "i": "2"})
                while (told := await ann.json())["d"]["count"] > 2:
                    pass
                assert told["d"]["count"] == 2
                await cid.ask({"t": "unsub", "c": "room:1", "i": "2"})
                while (told := await ann.json())["d"]["count"] > 1:
                    pass
                assert told["t"] == "presence"
                assert told["d"]["users"] == [{"user_id": "ann", "username": "ANN", "connections": 1}]
                await subscribe(bob)
                assert await notice(ann) == ("join", "bob")


async def test_another_token_renames_the_user_and_may_take_the_right_to_look() -> None:
    with trio.fail_after(20):
        async with running_cluster(1) as [engine], user_client(engine, "ann") as ann, user_client(engine, "bob") as bob:
            await subscribe(ann, presence=True)
            await subscribe(bob)
            while await notice(ann) != ("join", "bob"):
                pass
            new = token("ann", username="Ann B.", channels={"*": ["sub"]})
            await ann.say({"t": "auth", "i": "a", "d": {"token": new}})
            told = await ann.json()
            assert (told["t"], told["c"], told["d"]["code"]) == ("err", "room:1", "permission_denied")
            assert (await ann.json())["t"] == "ok"
            while (await presence(bob))["users"][0].get("username") != "Ann B.":
                await trio.sleep(0.02)
            assert (await presence(bob))["connections"] == 2


async def test_plain_clients_are_told_who_is_online_without_asking() -> None:  # S2-107
    with trio.fail_after(20):
        async with (
            running_cluster() as [one, other],
            user_client(one, "ann", PLAIN) as ann,
            user_client(other, "bob") as bob,
        ):
            assert (await ann.ask({"type": "subscribe", "channel": "room:1"}))["type"] == "subscription_result"
            assert (await ann.json())["type"] == "user_online"
            await subscribe(bob)
            told = await ann.json()
            assert {told.pop("timestamp")[:2], type(told.pop("message_id"))} == {"20", str}
            about = {"user_id": "bob", "username": "BOB"}
            assert told == {"type": "user_online", "channel": "room:1", "data": about, "user_id": "bob"}
            told = await ann.ask({"type": "get_online_users", "channel": "room:1"})
            assert told["type"] == "online_users"
            assert [user["user_id"] for user in told["users"]] == ["ann", "bob"]
            await bob.ask({"t": "unsub", "c": "room:1", "i": "2"})
            assert (await ann.json())["type"] == "user_offline"


async def test_a_plain_client_without_the_right_subscribes_as_before() -> None:
    with trio.fail_after(10):
        async with (
            running_cluster(1) as [engine],
            user_client(engine, "ann", PLAIN, channels={"*": ["sub"]}) as ann,
        ):
            for channel in ("room:1", "dull:1"):
                told = await ann.ask({"type": "subscribe", "channel": channel})
                del told["timestamp"]
                assert told == {"type": "subscription_result", "channel": channel, "subscribed": True}


async def test_the_users_of_the_whole_system_are_counted_once_each() -> None:
    with trio.fail_after(10):
        async with (
            running_cluster() as [one, other],
            user_client(one, "ann") as ann,
            user_client(other, "ann"),
            user_client(other, "bob", channels={"room:*": ["presence"]}) as bob,
            user_client(other, None),
        ):
            while (await ask(ann, t="presence"))["d"] != {"count": 2, "connections": 4, "anonymous": 1}:
                await trio.sleep(0.05)
            assert (await ask(bob, t="presence"))["d"]["code"] == "permission_denied"


async def test_without_the_bus_a_channel_that_is_not_followed_is_unavailable_and_later_is_not() -> None:
    with trio.fail_after(20):
        async with running_cluster() as [one, other], user_client(one, "ann") as ann, user_client(other, "bob") as bob:
            await subscribe(bob)
            one.broker.available = False
            assert (await ask(ann, t="presence", c="room:1"))["d"]["code"] == "unavailable"
            one.broker.available = True
            await wait_names(ann, ["bob"])
