"""The programs of docs/reference/client.md, run as they stand there, in a process each."""

from collections.abc import Iterator

import pytest

from tests.support.servers.serve import Serve, shared_serve
from tests.support.tasks.stored import in_thread, run_script
from tests.test_docs import Block, blocks

PROGRAMS = [block for block in blocks("python") if block.page.name == "client.md"]
HELLO = {"news:all": "news:all {'title': 'hello'}\n", "news:plain": "news:plain {'title': 'hello'}\n"}


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with shared_serve() as serve:
        yield serve


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
async def test_every_program_of_the_page_prints_what_it_says(serve: Serve, program: Block) -> None:
    code = program.code.replace("ws://127.0.0.1:8080/ws", serve.url)
    ended = await in_thread(lambda: run_script(code, **serve.environ))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout in HELLO.values()


@pytest.mark.parametrize("url", ["given", "variable", "local"])
async def test_the_server_is_the_one_that_is_given_named_by_the_environment_or_local(serve: Serve, url: str) -> None:
    given = repr(serve.url) if url == "given" else ""
    code = f"import fanline\nwith fanline.Client({given}) as client:\n    print(client.url, client.ping() < 60)\n"
    environ = {**serve.environ, "FANLINE_URL": {"given": "ws://127.0.0.1:1/ws", "variable": serve.url}.get(url, "")}
    ended = await in_thread(lambda: run_script(code, **environ))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{serve.url} True\n", "")


def test_the_page_has_programs() -> None:
    assert len(PROGRAMS) == 2
