"""Functions of a program that the server calls: message types, events, who comes in, and who sees a room."""

import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from tests.integration.compat.programs import Program, asked, heard, own_environ, program, visitor
from tests.support.raw_client import connect_raw
from tests.support.servers.free_port import free_port
from tests.support.servers.serve import running_serve

BOARD = """
    class Board(WebSocketManager):
        async def authenticate_user(self, user_id, username):
            print("who", user_id, username)
            if user_id == "slow":
                await asyncio.sleep(60)
            return {"anna": True, "bert": True, "odd": "yes"}.get(user_id, False)

        def can_user_access_room(self, user_id, room_id):  # no coroutine function
            print("room", user_id, room_id)
            return (user_id, room_id) in (("anna", "project_123"), ("bert", "session:5"))

    async def main():
        await initialize_websocket_system("127.0.0.1", int(sys.argv[1]), Board())
        print("ready")
        await asyncio.to_thread(sys.stdin.readline)

    asyncio.run(main())
"""


async def test_a_program_says_who_comes_in_and_who_sees_a_room(tmp_path: Path) -> None:  # S1-13, S1-17, S1-18
    port = free_port()
    environ = own_environ(tmp_path, FANLINE_HANDLERS_TIMEOUT="2")
    async with program(BOARD, str(port), environ=environ, cwd=tmp_path) as board:
        assert await board.line() == "ready"
        async with visitor(port) as stranger:
            refused = await asked(stranger, {"type": "subscribe", "channel": "project:project_123"})
            assert refused["message"] == "Channel access denied"
            assert (await asked(stranger, {"type": "connect", "user_id": "carl"}))["type"] == "error"
            assert await board.line() == "who carl None"
            refused = await asked(stranger, {"type": "join_room", "room_id": "project_123"})
            assert refused["message"] == "Channel access denied"
        async with visitor(port, "anna") as anna, visitor(port, "bert") as bert:
            assert [await board.line(), await board.line()] == ["who anna Anna", "who bert Bert"]
            joined = await asked(anna, {"type": "join_room", "room_id": "project_123", "room_name": "Mine"})
            assert joined["type"] == "session_joined"
            assert await board.line() == "room anna project_123"
            refused = await asked(bert, {"type": "join_room", "room_id": "project_123"})
            assert refused["message"] == "Channel access denied"
            said = {"type": "new_message", "channel": "project:project_123", "data": {"text": "hello"}}
            assert (await asked(bert, said))["type"] == "error"
            answer = await asked(bert, {"type": "subscribe", "channel": "session:5"})
            assert (answer["type"], answer["subscribed"]) == ("subscription_result", True)
            assert (await asked(bert, {"type": "subscribe", "channel": "user:anna"}))["type"] == "error"


async def test_without_a_clear_answer_nobody_comes_in(tmp_path: Path) -> None:
    port = free_port()
    environ = own_environ(tmp_path, FANLINE_HANDLERS_TIMEOUT="0.5")
    async with program(BOARD, str(port), environ=environ, cwd=tmp_path) as board:
        assert await board.line() == "ready"
        async with visitor(port) as client:
            for user in ("slow", "odd", "x" * 200):
                answer = await asked(client, {"type": "connect", "user_id": user})
                assert answer["type"] == "error", user
            denied = await asked(client, {"type": "subscribe", "channel": "task:1"})
            assert denied["message"] == "Channel access denied"


async def test_while_the_program_is_away_nobody_comes_in_and_others_answer_for_it(tmp_path: Path) -> None:
    env = {"FANLINE_AUTH": "token", "FANLINE_ACCESS_AUTHENTICATOR": "nats:compat.authenticate"}
    async with running_serve(
        workers=1, env={**env, "FANLINE_ACCESS_ROOM_AUTHORIZER": "nats:compat.authorize"}
    ) as serve:

        async def comes_in() -> bool:
            async with visitor(serve.port) as client:
                answer = await asked(client, {"type": "connect", "user_id": "anna"})
                return answer.get("user_id") == "anna"

        def board() -> AbstractAsyncContextManager[Program]:
            return program(BOARD, str(serve.port), environ=serve.environ, cwd=tmp_path)

        async with board() as first, board() as second:
            for each in (first, second):
                assert await each.line() == "ready"
            assert await comes_in()
            first.process.send_signal(signal.SIGKILL)
            await first.process.wait()
            assert await comes_in()
        async with connect_raw("127.0.0.1", serve.port) as client:
            with pytest.raises(ConnectionRefusedError):  # before the handshake, and not for good
                await client.upgrade(None, "/ws")


async def test_a_server_that_would_not_ask_is_not_attached_to(tmp_path: Path) -> None:
    script = """
        async def main():
            websocket_manager.authenticate_user = lambda user, name: False
            try:
                await initialize_websocket_system("127.0.0.1", int(sys.argv[1]))
            except ServerNotStarted as error:
                print(error)

        asyncio.run(main())
    """
    async with running_serve(workers=1) as serve:
        async with program(script, str(serve.port), environ=serve.environ, cwd=tmp_path) as refused:
            text = await refused.line()
    assert "does not ask this program" in text
    assert 'FANLINE_ACCESS_AUTHENTICATOR="nats:compat.authenticate"' in text


HANDLERS = """
    from fanline.hooks import HookRefusal

    def print(*words):  # a line at once: functions run in several threads
        sys.stdout.write(" ".join(map(str, words)) + "\\n")
        sys.stdout.flush()

    async def move(connection, message):
        if message.get("to") == "nowhere":
            raise HookRefusal("there is no such place")
        assert asyncio.get_running_loop() is loop
        return {"type": "moved", "by": connection.user_id, "connection": connection, "to": message["to"]}

    def fail(connection, message):
        raise ValueError

    async def came(event):
        print("came", event["user_id"])

    def entered(event):
        print(event["type"], event["session_id"], event["user_id"])

    async def main():
        global loop
        loop = asyncio.get_running_loop()
        register_message_handler("move", lambda connection, message: None)
        register_message_handler("move", move)
        add_event_handler("user_connected", came)
        await initialize_websocket_system("127.0.0.1", int(sys.argv[1]))
        register_message_handler("fail", fail)
        add_event_handler("session_joined", entered)
        websocket_manager.add_event_handler("order_paid", lambda event: print("paid", event["order"]))
        add_event_handler("task_events:all", lambda event: print(event["type"], event["task_id"], event["data"]))
        add_event_handler("websocket_channel_events", lambda event: print(event["type"], event.get("channel")))
        print("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            websocket_manager.emit_event("order_paid", {"order": line.strip()})

    asyncio.run(main())
"""


async def test_a_program_hears_events_and_answers_messages_of_its_own(tmp_path: Path) -> None:
    # S2-28, S2-86, S2-87, S4-69, S4-70, S4-73
    port = free_port()
    async with program(HANDLERS, str(port), environ=own_environ(tmp_path), cwd=tmp_path) as app:
        assert await app.line() == "ready"
        await app.say("17")
        assert await app.line() == "paid 17"
        async with visitor(port, "anna") as anna:
            await app.says("connection_opened None", "came anna")
            moved = await asked(anna, {"type": "move", "to": "b4"})
            assert (moved["type"], moved["by"], moved["to"]) == ("moved", "anna", "b4")
            assert moved["connection"]
            assert (await asked(anna, {"type": "move", "to": "nowhere"}))["message"] == "there is no such place"
            assert (await asked(anna, {"type": "fail"}))["message"] == "Message processing error"
            assert (await asked(anna, {"type": "dance"}))["message"] == "Unknown message type: dance"
            await asked(anna, {"type": "join_room", "room_id": "session:5"})
            await app.says("session_joined 5 anna", "subscribed session:5")
            await anna.say({"type": "subscribe", "channel": "task:9"})
            await heard(anna, "subscription_result")
            await app.says("subscribed task:9")
        await app.says("connection_closed None")


async def test_what_programs_say_of_all_tasks_is_heard_as_it_was_on_redis(tmp_path: Path) -> None:  # S2-86
    port = free_port()
    environ = own_environ(tmp_path)
    async with program(HANDLERS, str(port), environ=environ, cwd=tmp_path) as app:
        assert await app.line() == "ready"
        script = """
            emit_task_event("task_started", 42, {"title": "T"}).wait(20)
            emit_project_event("project_updated", 7, {}).wait(20)
            emit_task_event("task_completed", 42, {"result": {}}).wait(20)
            print("said")
        """
        async with program(script, environ=environ, cwd=tmp_path) as producer:
            assert await producer.line() == "said"
        assert await app.line() == "task_started 42 {'title': 'T'}"
        assert await app.line() == "task_completed 42 {'result': {}}"


def test_a_manager_that_runs_takes_no_other_functions() -> None:
    from fanline.compat import WebSocketManager

    manager = WebSocketManager()
    assert manager.subjects_required() == frozenset()
    manager.authenticate_user = lambda user_id, username: True  # type: ignore[method-assign]
    assert manager.subjects_required() == {"compat.authenticate"}


async def test_what_a_program_hears_goes_on_after_its_server_was_restarted(tmp_path: Path) -> None:
    async with running_serve(workers=1, env={"FANLINE_HOOKS_EVENTS": "user_connected"}) as serve:
        script = """
            add_event_handler("user_connected", lambda event: print(event["user_id"]))
            websocket_manager.start().result(20)
            print("ready")
            sys.stdin.readline()
        """
        async with program(script, environ=serve.environ, cwd=tmp_path) as app:
            assert await app.line() == "ready"
            async with visitor(serve.port, "anna"):
                assert await app.line() == "anna"
            serve.child.kill()
            await serve.start_again()
            with trio.fail_after(60):
                name = ""
                while name != "bert":
                    async with visitor(serve.port, "bert"):
                        with trio.move_on_after(1):
                            name = await app.line()
