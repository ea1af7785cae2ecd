"""The task board (S1): its whole story, told by clients that are not ours."""

from pathlib import Path

import trio

from tests.support.foreign.examples import example, play
from tests.support.serve import running_serve

SECONDS = 60


async def test_the_example_reaches_who_is_there_and_who_comes_later(tmp_path: Path) -> None:
    news = ["new: Write the minutes (todo)", "t1 todo -> in_progress"]
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve:
            site = f"ws://localhost:{serve.port}"
            async with example(serve, tmp_path, "task_board/client.py", "bert", site) as bert:
                assert await bert.receive() == "Bert is here"
                assert await play(serve, tmp_path, "task_board/producer.py", site) == ["1 item on the board"]
                assert await bert.rest() == news
            anna = await play(serve, tmp_path, "task_board/client.py", "anna", site)
            assert [line for line in anna if "is here" not in line] == news
