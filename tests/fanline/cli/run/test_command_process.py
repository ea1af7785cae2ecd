"""The command under `fanline run`, as a process."""

import os

import msgspec
import pytest
import trio

from fanline.cli.run.command_process import start_command

SHOW = "import json, os; print(json.dumps({key: value for key, value in os.environ.items() if 'FANLINE' in key}))"
GIVEN = {
    "FANLINE_TOKEN": "of a viewer",
    "FANLINE_TOKENS_SECRET": "of a server",
    "FANLINE_TASK": "of the run around us",
    "FANLINE_SOCKET": "of the run around us",
    "FANLINE_NATS": "nats://localhost:4222",
    "FANLINE_NATS_CREDS": "a path",
    "FANLINE_STATE_DIR": "a directory",
}


@pytest.mark.process
async def test_a_command_may_publish_as_we_do_and_has_neither_our_token_nor_the_secret_that_signs_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key in [key for key in os.environ if "FANLINE" in key]:
        monkeypatch.delenv(key)
    for key, value in GIVEN.items():
        monkeypatch.setenv(key, value)
    with trio.fail_after(20):
        command = await start_command(["python3", "-c", SHOW])
        shown = b""
        while (data := await command.receive(command.outputs["stdout"])) is not None:
            shown += data
        assert await command.wait() == 0
    inherited = ("FANLINE_NATS", "FANLINE_NATS_CREDS", "FANLINE_STATE_DIR")
    assert msgspec.json.decode(shown) == {key: GIVEN[key] for key in inherited}
