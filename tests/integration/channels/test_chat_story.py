"""A chat between plain clients on two workers, with a real nats-server: from the first to the last notice."""

from typing import Any

import trio

from tests.support.raw_client import RawClient
from tests.support.servers.serve import running_serve
from tests.support.tasks.on_worker import connect_to

_ANY_TIME = ("ping", "user_online", "user_offline")


async def heard(client: RawClient, *kinds: str) -> dict[str, Any]:
    """The next message, which is of one of these types; but for those that come at any time."""
    message = await client.json()
    while message["type"] in _ANY_TIME:
        message = await client.json()
    assert message["type"] in kinds, message
    return message


async def test_two_who_chat_on_two_workers_hear_each_other_and_nothing_of_themselves() -> None:
    with trio.fail_after(90):
        async with running_serve(2) as serve:
            first, second = serve.worker_pids()
            async with connect_to(serve, first, None) as anna, connect_to(serve, second, None) as bert:
                for client, name in ((anna, "Anna"), (bert, "Bert")):
                    await client.say({"type": "connect", "user_id": name.lower(), "username": name})
                    await heard(client, "connection_established")
                room = {"room_id": "project_123", "room_name": "My Project"}
                await anna.say({"type": "join_room", **room})
                await heard(anna, "session_joined")
                await bert.say({"type": "join_room", **room})
                await heard(bert, "session_joined")
                assert (await heard(anna, "session_joined"))["user"] == {"user_id": "bert", "username": "Bert"}

                await bert.say({"type": "typing", "room_id": "project_123", "is_typing": True})
                assert (await heard(anna, "typing"))["is_typing"] is True
                said = {"type": "new_message", "room_id": "project_123", "data": {"text": "hello"}, "message_id": "b-1"}
                await bert.say(said)
                sent = await heard(bert, "message_status_update")
                got = await heard(anna, "new_message")
                assert (sent["client_message_id"], sent["message_id"]) == ("b-1", got["message_id"])
                assert (got["username"], got["data"]) == ("Bert", {"text": "hello"})
                delivered = await heard(bert, "message_status_update")
                assert (delivered["status"], delivered["message_id"]) == ("delivered", got["message_id"])
                await anna.say({"type": "message_read", "message_id": got["message_id"]})
                read = await heard(bert, "message_status_update")
                assert (read["status"], read["client_message_id"], read["user_id"]) == ("read", "b-1", "anna")

                await anna.say({"type": "collaboration_start", "document_id": "d1"})
                await heard(anna, "collaboration_start")
                await bert.say({"type": "collaboration_start", "document_id": "d1"})
                both = [await heard(client, "collaboration_start") for client in (anna, bert)]
                assert [len(each["data"]["collaborators"]) for each in both] == [2, 2]
                edit = {"type": "document_edit", "document_id": "d1", "operation": "insert", "position": 0}
                await anna.say({**edit, "content": "x"})
                sequence = (await heard(anna, "message_status_update"))["sequence"]
                assert (await heard(bert, "document_edit"))["sequence"] == sequence

                await anna.say({"type": "user_status", "status": "away"})
                assert (await heard(bert, "user_status_update"))["status"] == "away"
                await anna.stream.aclose()
                ends = ("session_left", "collaboration_end")
                assert {(await heard(bert, *ends))["type"] for _ in ends} == {*ends}
