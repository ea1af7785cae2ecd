"""What docs/how-to/let-clients-in-with-tokens.md tells a backend to do is what the server accepts."""

import os
import sys

import pytest
import trio

import fanline
from tests.support.servers.serve import running_serve
from tests.test_docs import blocks

SECRET = "a secret of at least thirty-two bytes"


async def test_the_token_of_the_page_gets_its_user_in_with_the_rights_that_the_page_names() -> None:
    block = next(block for block in blocks("python") if block.page.name == "let-clients-in-with-tokens.md")
    environ = {"FANLINE_TOKENS_SECRET": SECRET}
    with trio.fail_after(90):
        command = [sys.executable, "-P", "-W", "error", "-c", block.code]
        ended = await trio.run_process(command, env={**os.environ, **environ}, capture_stdout=True)
        token = ended.stdout.decode().strip()
        async with (
            running_serve(workers=1, extra_args=("--auth", "token"), env=environ) as serve,
            fanline.Client(serve.url, token=token) as client,
        ):
            async with client.subscribe("project:atlas", "task:hermes-7"):
                await client.history("project:hermes")
            for refused in ("project:zeus", "task:zeus-1"):
                with pytest.raises(fanline.ServerError, match="no right to sub"):
                    async with client.subscribe(refused):
                        pass
            with pytest.raises(fanline.ServerError, match="no right to pub"):
                await client.publish("project:atlas", 1)
