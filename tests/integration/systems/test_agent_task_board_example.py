"""The example of the agent task board (S3) shows what its page says."""

from pathlib import Path

import trio

from tests.support.foreign.examples import example, play
from tests.support.servers.serve import running_serve

SECONDS = 60
EVENTS = ["task_created", "agent_spawned", "plan_generated", "task_status_changed"]
FOR_ALL = "all agents are idle"


async def test_a_board_shows_the_agents_of_its_project_and_what_is_for_everybody(tmp_path: Path) -> None:  # S3-24
    client, producer = (f"agent_task_board/{name}" for name in ("client.mjs", "producer.py"))
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve:
            site = f"ws://localhost:{serve.port}"
            async with example(serve, tmp_path, client, "7", site) as seven:
                async with example(serve, tmp_path, client, "8", site) as eight:
                    for board in (seven, eight):
                        assert await board.receive() == "connected"
                    assert await play(serve, tmp_path, producer, "7") == []
                    shown = [await seven.receive() for _ in range(5)]  # channels have no common order
                    assert FOR_ALL in shown
                    assert [line.split()[0] for line in shown if line != FOR_ALL] == EVENTS
                    assert await eight.receive() == FOR_ALL
