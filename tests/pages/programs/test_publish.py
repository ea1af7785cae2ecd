"""The programs of docs/how-to/publish-from-python.md, run as they stand there, in a process each."""

from collections.abc import Iterator

import pytest

from tests.support.servers.serve import Serve, shared_serve
from tests.support.tasks.stored import in_thread, run_script
from tests.test_docs import Block, blocks

PROGRAMS = [block for block in blocks("python") if block.page.name == "publish-from-python.md"]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with shared_serve() as serve:
        yield serve


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
async def test_every_program_of_the_page_runs_and_says_nothing(serve: Serve, program: Block) -> None:
    ended = await in_thread(lambda: run_script(program.code, **serve.environ))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_page_has_programs() -> None:
    assert len(PROGRAMS) == 3
