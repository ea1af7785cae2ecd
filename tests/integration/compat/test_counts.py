"""How many there are, as programs of the old systems ask it: without waiting for anything, even in an event loop."""

from pathlib import Path

import pytest

from fanline.management import ManagementClient, ManagementError
from tests.integration.compat.programs import asked, heard, own_environ, program, visitor
from tests.support.servers.free_port import free_port
from tests.support.tasks.stored import in_thread, run_script

ASK = """
    async def main():
        await send_to_user("anna", {"type": "note"})
        await asyncio.to_thread(sys.stdin.readline)
        print(get_channel_subscriber_count("task:42"), get_channel_subscriber_count("nobody:here"))
        print(get_channel_subscriber_count("session:5"))
        print(get_connection_count(), get_user_connection_count("anna"), get_user_connection_count("no/body"))
        stats = get_websocket_stats()
        print(stats["active_connections"], stats["messages_sent"] >= 2)
        print(websocket_manager.get_stats().keys() == stats.keys())

    asyncio.run(main())
"""
SERVED = """
    async def main():
        await initialize_websocket_system("127.0.0.1", int(sys.argv[1]))
        print(get_websocket_stats()["active_connections"])  # at once
        await asyncio.to_thread(sys.stdin.readline)

    asyncio.run(main())
"""


async def test_a_program_knows_how_many_there_are(tmp_path: Path) -> None:  # S1-12, S2-89, S4-08, S4-09
    port, environ = free_port(), own_environ(tmp_path, FANLINE_CONTROL="true")
    async with program(SERVED, str(port), environ=environ, cwd=tmp_path) as app:
        assert await app.line() == "0"
        async with visitor(port, "anna") as anna, visitor(port, "anna"), visitor(port, "bert"):
            for channel in ("task:42", "session:5"):
                assert (await asked(anna, {"type": "subscribe", "channel": channel}))["subscribed"]
            async with program(ASK, environ=environ, cwd=tmp_path) as other:
                await heard(anna, "note")
                await other.say()
                assert await other.line() == "1 0"
                assert await other.line() == "1"
                assert await other.line() == "3 2 0"
                assert await other.line() == "3 True"
                assert await other.line() == "True"
            client = ManagementClient(environ=environ)
            listed = await in_thread(lambda: [each["user_id"] for each in client.items("/connections", limit=1)])
            assert sorted(listed) == ["anna", "anna", "bert"]
            closed = await in_thread(lambda: client.post("/users/disconnect", user_id="bert"))
            assert closed["disconnected"] == 1


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "no running `fanline serve` found"),
        ({"FANLINE_URL": "http://127.0.0.1:1"}, "//127.0.0.1:1/ws does not answer"),
    ],
)
async def test_without_a_server_it_is_an_error_that_says_so(tmp_path: Path, environ: dict[str, str], why: str) -> None:
    script = "from fanline.compat import get_websocket_stats\nget_websocket_stats()"
    ended = await in_thread(lambda: run_script(script, FANLINE_STATE_DIR=str(tmp_path), **environ))
    assert why in ended.stderr


async def test_a_server_without_a_control_process_says_so(tmp_path: Path) -> None:
    port, environ = free_port(), own_environ(tmp_path)
    script = SERVED.replace('get_websocket_stats()["active_connections"]', '"ready"')
    async with program(script, str(port), environ=environ, cwd=tmp_path) as app:
        assert await app.line() == "ready"
        with pytest.raises(ManagementError, match="control = false"):
            await in_thread(lambda: ManagementClient(environ=environ).get("/stats"))
