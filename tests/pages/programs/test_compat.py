"""docs/how-to/move-from-an-existing-system.md, done as it is written."""

import re
from pathlib import Path

from tests.integration.compat.programs import asked, own_environ, program, visitor
from tests.support.paths import ROOT
from tests.support.servers.free_port import free_port
from tests.support.servers.serve import running_serve

_TEXT = (ROOT / "docs" / "how-to" / "move-from-an-existing-system.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", _TEXT, re.MULTILINE | re.DOTALL)
(PROGRAM,) = (text for language, text in BLOCKS if "Manager())" in text)
(SETTINGS,) = (text for language, text in BLOCKS if language == "toml")


async def test_the_program_of_the_page_lets_in_whom_it_knows_and_answers_them(tmp_path: Path) -> None:
    port = free_port()
    script = PROGRAM.replace('"0.0.0.0", 8765', f'"127.0.0.1", {port}')
    script = script.replace("    await server.wait_ended()", "    print(1)\n    await server.wait_ended()")
    async with program(script, environ=own_environ(tmp_path), cwd=tmp_path) as app:
        assert await app.line() == "1"
        async with visitor(port, "anna") as anna, visitor(port) as stranger:
            await app.says("anna is there")
            approved = await asked(anna, {"type": "approve_order", "order": 7})
            assert (approved["type"], approved["order"], approved["by"]) == ("approved", 7, "anna")
            assert (await asked(anna, {"type": "subscribe", "channel": "project:project_123"}))["subscribed"]
            assert (await asked(anna, {"type": "subscribe", "channel": "project:other"}))["type"] == "error"
            assert (await asked(stranger, {"type": "connect", "user_id": "carl"}))["type"] == "error"


async def test_with_the_settings_of_the_page_a_server_asks_programs_that_come(tmp_path: Path) -> None:
    (tmp_path / "fanline.toml").write_text(SETTINGS)
    script = """
        websocket_manager.can_user_access_room = lambda user_id, room_id: room_id == "open"
        websocket_manager.authenticate_user = lambda user_id, username: user_id == "anna"
        add_event_handler("user_connected", lambda event: print(event["user_id"]))
        register_message_handler("hello", lambda connection, message: {"to": connection.user_id})
        websocket_manager.start().result(20)
        print("ready")
        sys.stdin.readline()
    """
    async with running_serve(1, prefix=("env", "-C", str(tmp_path))) as serve:
        async with program(script, environ=serve.environ, cwd=tmp_path) as app:  # without an event loop
            assert await app.line() == "ready"
            async with visitor(serve.port, "anna") as anna:
                await app.says("anna")
                assert (await asked(anna, {"type": "hello"}))["to"] == "anna"
                assert (await asked(anna, {"type": "join_room", "room_id": "open"}))["type"] == "session_joined"
                assert (await asked(anna, {"type": "join_room", "room_id": "shut"}))["type"] == "error"
