"""The example of the sales assistant (S4) shows what its page says."""

from pathlib import Path

import trio

from tests.engine.access.clients import SECRET, token
from tests.support.foreign.examples import example, play
from tests.support.foreign.programs import Lines
from tests.support.servers.serve import running_serve

SECONDS = 60
RIGHTS = {"session:9": ["sub", "pub"]}
OF_THE_SESSION = ["AI: processing", "AI: completed", "maintenance, back at noon"]
NOTICE = "warning: Quota, 80 % of this month's messages are used"


async def some(program: Lines, number: int) -> list[str]:
    """Its next lines but for receipts, sorted, since channels have no common order."""
    found: list[str] = []
    while len(found) < number:
        line = await program.receive()
        found += [] if line.startswith("line ") else [line]
    return sorted(found)


async def test_two_people_chat_and_hear_what_their_backend_says(tmp_path: Path) -> None:  # S4-21, S4-24, S4-26
    client, producer = (f"sales_assistant/{name}" for name in ("client.mjs", "producer.py"))
    env = {"FANLINE_TOKENS_SECRET": SECRET, "FANLINE_AUTH": "token"}
    with trio.fail_after(SECONDS):
        async with running_serve(2, env=env) as serve:
            site = f"ws://localhost:{serve.port}"
            async with example(serve, tmp_path, client, "9", token("anna", channels=RIGHTS), site) as anna:
                assert await anna.receive() == "connected"
                async with example(serve, tmp_path, client, "9", token("bert", channels=RIGHTS), site) as bert:
                    assert await bert.receive() == "connected"
                    assert await anna.receive() == "bert has come"
                    await anna.type("hello")
                    assert await some(bert, 2) == ["anna is typing", "anna: hello"]
                    while await anna.receive() != "line 1: read":
                        pass
                    assert await play(serve, tmp_path, producer, "9", "anna") == []
                    assert await some(bert, 3) == sorted(OF_THE_SESSION)
                    assert await some(anna, 4) == sorted([*OF_THE_SESSION, NOTICE])
                assert await anna.receive() == "bert has gone"
