"""The contract review (S5): its whole story, told by clients that are not ours."""

from pathlib import Path

import trio

from tests.support.foreign.examples import example, play
from tests.support.serve import running_serve

SECONDS = 60
STAGES = ["0 % reading", "25 % analyzing", "50 % checking", "75 % summarizing", "100 % complete"]


async def test_the_example_follows_a_review_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    with trio.fail_after(SECONDS):
        async with running_serve(2) as serve:
            site = f"ws://localhost:{serve.port}"
            async with example(serve, tmp_path, "contract_review/client.mjs", "123", site) as shown:
                assert await shown.receive() == "UNKNOWN not known yet"
                assert await play(serve, tmp_path, "contract_review/producer.py", "123") == []
                seen = [line for line in await shown.rest() if "%" in line]
                assert seen[-1] == "100 % complete"
                assert seen == [line for line in STAGES if line in seen]  # a newer one may replace one not sent yet
            late = await play(serve, tmp_path, "contract_review/client.mjs", "123", site)
            assert late[:2] == ["COMPLETED lease", "100 % complete"]
